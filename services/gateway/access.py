"""Access control by bearer tokens."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.interceptor import Authorize

SCHEME = "bearer "


def require_token(tokens: Iterable[str]) -> Authorize | None:
    """Return a check of the metadata of a call; None if no tokens are configured.

    The check returns the number of the token as the name of the caller, and raises ServiceError
    with UNAUTHENTICATED. `serve` applies it to all services except
    gRPC's own, such as health and reflection.
    """
    known = [token.encode() for token in tokens]
    if not known:
        return None

    def authorize(_method: str, metadata: dict[str, str]) -> str:
        header = metadata.get("authorization", "")
        given = header[len(SCHEME) :].strip().encode()
        matches = [hmac.compare_digest(given, token) for token in known]
        if not header.lower().startswith(SCHEME) or not any(matches):
            raise ServiceError(
                Reason.UNAUTHENTICATED,
                'missing or invalid token: send the metadata "authorization: Bearer TOKEN"',
            )
        return f"token {matches.index(True)}"

    return authorize
