"""Page tokens of FindDuplicates: how far the scan had come, carried by the caller.

    base64url( version:u8 · mac:16 bytes · JSON )

Nothing is pinned but a place in the order of the library's images, which is that of their uids and
so the same in every call; whatever else later messages depend on is worked out again. The MAC is
as in `page_tokens`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass

from imagesearch_services.gateway.tokens import invalid_token

VERSION = b"\x80"
"""None of the versions of a search's tokens."""

_MAC_BYTES = 16

_COMPARISONS = range(1, 2**63)
_CHECKED_COUNTS = range(2**31)
"""What the contract's int32 holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place in a scan."""

    library_uid: str
    request: Mapping[str, str]
    """Fingerprints of the request's fields."""
    comparisons: int
    """Images that were there at the beginning: thresholds depend on it."""
    page: str = ""
    """The Catalog's token of the page to go on with."""
    after: bytes = b""
    """Uid of the last image of that page that is done with; empty: none is."""
    checked_count: int = 0
    turn: bytes = b""
    """Uid of the image whose groups are being sent; empty: of none."""
    sent_count: int = 0
    """How many of them were."""


class DuplicateTokens:
    """Makes and reads them."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encode(self, place: Place) -> str:
        body = json.dumps(
            [
                place.library_uid,
                dict(place.request),
                place.comparisons,
                place.page,
                place.after.hex(),
                place.checked_count,
                place.turn.hex(),
                place.sent_count,
            ],
            separators=(",", ":"),
        ).encode()
        token = VERSION + self._mac(VERSION + body) + body
        return base64.urlsafe_b64encode(token).decode().rstrip("=")

    def decode(self, text: str) -> Place:
        """Read a token back.

        Raises:
            ServiceError: PAGE_TOKEN_INVALID.
        """
        try:
            token = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise invalid_token("it was not made by this service") from None
        mac, body = token[1 : 1 + _MAC_BYTES], token[1 + _MAC_BYTES :]
        if token[:1] != VERSION or not hmac.compare_digest(mac, self._mac(VERSION + body)):
            raise invalid_token("it was not made by this service, or was altered")
        try:
            library_uid, request, comparisons, page, after, checked_count, turn, sent_count = (
                json.loads(body)
            )
            place = Place(
                library_uid=str(library_uid),
                request=dict(request),
                comparisons=int(comparisons),
                page=str(page),
                after=bytes.fromhex(after),
                checked_count=int(checked_count),
                turn=bytes.fromhex(turn),
                sent_count=int(sent_count),
            )
        except (ValueError, TypeError, OverflowError, RecursionError):
            # Under the default key, an empty one, anybody can sign.
            raise invalid_token("it was not made by this service") from None
        if place.comparisons not in _COMPARISONS or place.checked_count not in _CHECKED_COUNTS:
            raise invalid_token("it was not made by this service")
        return place

    def _mac(self, message: bytes) -> bytes:
        return hmac.digest(self._key, message, "sha256")[:_MAC_BYTES]
