"""Page tokens of searches: the pinned ranking, carried by the caller.

A token contains all data that later pages need: the uid, score and place of each match of later
pages, and the details that every page repeats. So any Gateway with the same key serves later pages,
and no Gateway keeps state.

    base64url( version:u8 · mac:16 bytes · deflate( header JSON · columns ) )

The MAC is HMAC-SHA-256 over version and body, under the key of the settings or of the installation.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace

from imagesearch_services.common.errors import FieldViolation, Reason, ServiceError
from imagesearch_services.gateway.search.pinned_ranking import PinnedRanking
from imagesearch_services.gateway.search.token_format import pack_ranking, unpack_ranking
from imagesearch_services.gateway.tokens import TokenKey, invalid_token

LIFETIME_S = 600
"""Seconds from the first page until a token expires."""
VERSION = b"\x01"
"""Version of the token format."""

_CLOCK_DIFFERENCE_S = 60
"""Maximum difference between the clocks of two Gateways. A token that expires later than one that
is made now, by more than this, was not made by a Gateway."""
_MAX_BODY_BYTES = 128 * 1024
"""Maximum bytes of an unpacked token; a forged token that unpacks to more is refused."""


class PageTokens:
    """Encodes and decodes page tokens."""

    def __init__(self, key: TokenKey, now_s: Callable[[], float]) -> None:
        """Sign with `key`; `now_s` returns the seconds since 1970 UTC."""
        self._key = key
        self._now_s = now_s

    async def prepare(self) -> None:
        """Read the key. Call it before `encode` and `decode`."""
        await self._key.load()

    def encode(self, ranking: PinnedRanking) -> str:
        """Return a token for a ranking of at most `MAX_ITEMS` matches."""
        if not ranking.expires_at_s:
            ranking = replace(ranking, expires_at_s=self._now_s() + LIFETIME_S)
        return self._key.sign(VERSION, zlib.compress(pack_ranking(ranking), 1))

    def decode(self, token: str) -> PinnedRanking:
        """Return the ranking that a token holds.

        Raises:
            ServiceError: PAGE_TOKEN_INVALID or PAGE_TOKEN_EXPIRED.
        """
        body = self._key.verify(VERSION, token)
        try:
            ranking = unpack_ranking(_inflate(body))
        except (
            ValueError,
            KeyError,
            TypeError,
            IndexError,
            RecursionError,
            struct.error,
            zlib.error,
        ):
            raise invalid_token("it was not issued by this service") from None
        now_s = self._now_s()
        if now_s >= ranking.expires_at_s:
            raise ServiceError(
                Reason.PAGE_TOKEN_EXPIRED,
                f"the page token is older than {LIFETIME_S // 60} minutes: repeat the search",
                fields=[FieldViolation("page_token", "expired")],
            )
        if ranking.expires_at_s > now_s + LIFETIME_S + _CLOCK_DIFFERENCE_S:
            raise invalid_token("it was issued in the future")
        return ranking


def _inflate(body: bytes) -> bytes:
    inflater = zlib.decompressobj()
    raw = inflater.decompress(body, _MAX_BODY_BYTES)
    if not inflater.eof:
        raise ValueError("longer than any valid token")
    return raw
