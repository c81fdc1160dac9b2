"""Who may call: bearer tokens, where any are configured."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable

from imagesearch_services.common.errors import Reason, ServiceError

SCHEME = "bearer "


def require_token(tokens: Iterable[str]) -> Callable[[str, dict[str, str]], None] | None:
    """Make a check of a call's metadata; None where no token is configured.

    Health and reflection are not asked: `serve` leaves gRPC's own services open.
    """
    known = [token.encode() for token in tokens]
    if not known:
        return None

    def authorize(_method: str, metadata: dict[str, str]) -> None:
        header = metadata.get("authorization", "")
        given = header[len(SCHEME) :].strip().encode()
        matches = [hmac.compare_digest(given, token) for token in known]
        if not header.lower().startswith(SCHEME) or not any(matches):
            raise ServiceError(
                Reason.UNAUTHENTICATED,
                'send a token that is known here, as "authorization: Bearer TOKEN"',
            )

    return authorize
