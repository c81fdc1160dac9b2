"""Page tokens: the position in a list, and which list it was.

A token is opaque to callers. It carries a digest of its list, so that it is refused for another
list, and a MAC under the key of the installation, so that only its Catalogs can make one. It does
not expire: the position stays valid while the list changes.

    base64url( mac:16 bytes · digest of the list:8 bytes · last item )
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Awaitable, Callable

from imagesearch_services.common.errors import FieldViolation, Reason, ServiceError

MAC_BYTES = 16
DIGEST_BYTES = 8
MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 100


def effective_page_size(requested: int) -> int:
    """Return the page size to use: the default for 0, at most `MAX_PAGE_SIZE`."""
    return min(requested, MAX_PAGE_SIZE) or DEFAULT_PAGE_SIZE


class PageTokens:
    """Makes and reads the page tokens of all lists."""

    def __init__(self, key: Callable[[], Awaitable[bytes]]) -> None:
        """Sign with the key that `key` returns."""
        self._key = key

    async def make(self, scope: str, last: bytes) -> str:
        """Return the token that continues the list described by `scope` after `last`."""
        body = _digest(scope) + last
        mac = _mac(await self._key(), body)
        return base64.urlsafe_b64encode(mac + body).decode("ascii").rstrip("=")

    async def read(self, scope: str, token: str) -> bytes | None:
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
        mac, body = raw[:MAC_BYTES], raw[MAC_BYTES:]
        signed = hmac.compare_digest(mac, _mac(await self._key(), body))
        if not signed or body[:DIGEST_BYTES] != _digest(scope):
            raise _invalid()
        return body[DIGEST_BYTES:]


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, b"catalog page token " + body, "sha256")[:MAC_BYTES]


def _digest(scope: str) -> bytes:
    return hashlib.blake2b(scope.encode(), digest_size=DIGEST_BYTES).digest()


def _invalid() -> ServiceError:
    description = "it belongs to another list or was altered; start again without it"
    return ServiceError(
        Reason.PAGE_TOKEN_INVALID,
        f"page_token: {description}",
        fields=[FieldViolation("page_token", description)],
    )
