"""Page tokens of FindDuplicates, which contain the position of a scan.

    base64url( version:u8 · mac:16 bytes · JSON )

A position refers to the images of a library in the order of their uids, which is the same in every
call. Everything else that later updates depend on is computed again. The MAC is that of
`search.page_tokens`.
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
"""First byte of a token. No page token of a search begins with it."""

_MAC_BYTES = 16

_COMPARISONS = range(1, 2**63)
_CHECKED_COUNTS = range(2**31)
"""Range of `checked_count`, which is an int32 in the contract."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A position in a scan."""

    library_uid: str
    fingerprints: Mapping[str, str]
    """Fingerprints of the request's fields, by field name."""
    comparisons: int
    """Number of images in the library when the first call began; the thresholds depend on it."""
    catalog_token: str = ""
    """The Catalog's token of the current page; empty: the first page."""
    after: bytes = b""
    """Uid of the last completed image; empty: no image is completed."""
    checked_count: int = 0
    sending: bytes = b""
    """Uid of the image whose groups were sent in part; empty: no such image."""
    sent_count: int = 0
    """Number of sent groups of the image `sending`."""


class DuplicateTokens:
    """Encodes and decodes page tokens."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encode(self, position: Position) -> str:
        body = json.dumps(
            [
                position.library_uid,
                dict(position.fingerprints),
                position.comparisons,
                position.catalog_token,
                position.after.hex(),
                position.checked_count,
                position.sending.hex(),
                position.sent_count,
            ],
            separators=(",", ":"),
        ).encode()
        token = VERSION + self._mac(VERSION + body) + body
        return base64.urlsafe_b64encode(token).decode().rstrip("=")

    def decode(self, text: str) -> Position:
        """Read a token.

        Raises:
            ServiceError: PAGE_TOKEN_INVALID.
        """
        try:
            token = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise invalid_token("it was not issued by this service") from None
        mac, body = token[1 : 1 + _MAC_BYTES], token[1 + _MAC_BYTES :]
        if token[:1] != VERSION or not hmac.compare_digest(mac, self._mac(VERSION + body)):
            raise invalid_token("it was not issued by this service, or was altered")
        try:
            position = _read_position(body)
        except (ValueError, TypeError, OverflowError, RecursionError):
            # With the default key, which is empty, anybody can sign a malformed position.
            raise invalid_token("it was not issued by this service") from None
        if (
            position.comparisons not in _COMPARISONS
            or position.checked_count not in _CHECKED_COUNTS
        ):
            raise invalid_token("it was not issued by this service")
        return position

    def _mac(self, message: bytes) -> bytes:
        return hmac.digest(self._key, message, "sha256")[:_MAC_BYTES]


def _read_position(body: bytes) -> Position:
    (
        library_uid,
        fingerprints,
        comparisons,
        catalog_token,
        after,
        checked_count,
        sending,
        sent_count,
    ) = json.loads(body)
    return Position(
        library_uid=str(library_uid),
        fingerprints=dict(fingerprints),
        comparisons=int(comparisons),
        catalog_token=str(catalog_token),
        after=bytes.fromhex(after),
        checked_count=int(checked_count),
        sending=bytes.fromhex(sending),
        sent_count=int(sent_count),
    )
