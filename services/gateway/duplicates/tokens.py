"""Page tokens of FindDuplicates, which contain the position of a scan.

    base64url( version:u8 · mac:16 bytes · JSON )

A position refers to the images of a library in the order of their uids, which is the same in every
call. Everything else that later updates depend on is computed again. The MAC is that of
`search.page_tokens`. A token does not expire: a scan may be continued much later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from imagesearch_services.gateway.tokens import (
    TokenKey,
    fingerprints,
    integer,
    invalid_token,
    text,
)

VERSION = b"\x80"
"""First byte of a token. No page token of a search begins with it."""

_UID_BYTES = 16
_MAX_COMPARISONS = 2**63 - 1
_MAX_CHECKED_COUNT = 2**31 - 1
"""Maximum `checked_count`, which is an int32 in the contract."""


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

    def __init__(self, key: TokenKey) -> None:
        self._key = key

    async def prepare(self) -> None:
        """Read the key. Call it before `encode` and `decode`."""
        await self._key.load()

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
        return self._key.sign(VERSION, body)

    def decode(self, token: str) -> Position:
        """Read a token.

        Raises:
            ServiceError: PAGE_TOKEN_INVALID.
        """
        body = self._key.verify(VERSION, token)
        try:
            return _read_position(body)
        except (ValueError, TypeError, RecursionError):
            raise invalid_token("it was not issued by this service") from None


def _read_position(body: bytes) -> Position:
    (
        library_uid,
        request,
        comparisons,
        catalog_token,
        after,
        checked_count,
        sending,
        sent_count,
    ) = json.loads(body)
    return Position(
        library_uid=text(library_uid),
        fingerprints=fingerprints(request),
        comparisons=integer(comparisons, 1, _MAX_COMPARISONS),
        catalog_token=text(catalog_token),
        after=_uid(after),
        checked_count=integer(checked_count, 0, _MAX_CHECKED_COUNT),
        sending=_uid(sending),
        sent_count=integer(sent_count, 0, _MAX_CHECKED_COUNT),
    )


def _uid(value: object) -> bytes:
    """Read a uid, which may be empty."""
    uid = bytes.fromhex(text(value))
    if len(uid) not in {0, _UID_BYTES}:
        raise ValueError("not a uid")
    return uid
