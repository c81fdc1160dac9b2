"""Page tokens: the position in a list, and which list it was.

A token is opaque to callers. It carries a digest of its list, so that it is refused for another
list, and a checksum, so that an altered token is refused. It is not a secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from imagesearch_services.common.errors import Reason, ServiceError

DIGEST_BYTES = 8
MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 100


def page_size(requested: int) -> int:
    """Return the page size to use: the default for 0, at most `MAX_PAGE_SIZE`."""
    return min(requested, MAX_PAGE_SIZE) or DEFAULT_PAGE_SIZE


def make_token(scope: str, last: bytes) -> str:
    """Return the token that continues the list described by `scope` after `last`."""
    body = _digest(scope.encode()) + last
    return base64.urlsafe_b64encode(_digest(body) + body).decode("ascii").rstrip("=")


def read_token(scope: str, token: str) -> bytes | None:
    """Return the last item of the page before; None for an empty token, the first page.

    Raises:
        ServiceError: PAGE_TOKEN_INVALID if the token was not made for this list.
    """
    if not token:
        return None
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _invalid() from None
    checksum, body = raw[:DIGEST_BYTES], raw[DIGEST_BYTES:]
    if checksum != _digest(body) or body[:DIGEST_BYTES] != _digest(scope.encode()):
        raise _invalid()
    return body[DIGEST_BYTES:]


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def _invalid() -> ServiceError:
    return ServiceError(
        Reason.PAGE_TOKEN_INVALID,
        "page_token belongs to another list or was altered; start again without it",
    )
