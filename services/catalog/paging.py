"""Page tokens: where a list goes on, and which list it was.

A token is opaque to callers. It carries what the list was of, so that it can't be used for
another, and a checksum, so that an altered one is noticed; it is no secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from imagesearch_services.common.errors import Reason, ServiceError

DIGEST_BYTES = 8
MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 100


def page_size(asked: int) -> int:
    """Return how many to give: 0 means the default, more than the most means the most."""
    return min(asked, MAX_PAGE_SIZE) or DEFAULT_PAGE_SIZE


def make_token(scope: str, last: bytes) -> str:
    """Say that the list described by `scope` goes on after `last`."""
    body = _digest(scope.encode()) + last
    return base64.urlsafe_b64encode(_digest(body) + body).decode("ascii").rstrip("=")


def read_token(scope: str, token: str) -> bytes | None:
    """Return what the list goes on after; None at its beginning.

    Raises:
        ServiceError: PAGE_TOKEN_INVALID for a token that is not of this list.
    """
    if not token:
        return None
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _invalid() from None
    check, body = raw[:DIGEST_BYTES], raw[DIGEST_BYTES:]
    if check != _digest(body) or body[:DIGEST_BYTES] != _digest(scope.encode()):
        raise _invalid()
    return body[DIGEST_BYTES:]


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def _invalid() -> ServiceError:
    return ServiceError(
        Reason.PAGE_TOKEN_INVALID, "the page token is of another list, or was altered"
    )
