"""Page tokens of searches: the pinned ranking, carried by the caller.

A token contains all data that later pages need: the uid, score and place of each match of later
pages, and the details that every page repeats. So any Gateway with the same key serves later pages,
and no Gateway keeps state. Numbers are little-endian and stored by column, which compresses better
than by row.

    base64url( version:u8 · mac:16 bytes · deflate( header JSON · columns ) )

The MAC is HMAC-SHA-256 over version and body under the key in the settings. With the default, an
empty key, it is a checksum: a caller could forge a token, but such a token only names images of a
library that the caller may read anyway.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import struct
import zlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from imagesearch_services.common.errors import FieldViolation, Reason, ServiceError
from imagesearch_services.common.types import (
    Attribute,
    Box,
    Category,
    Color,
    PictureInfo,
    Quadrilateral,
    Subject,
)
from imagesearch_services.gateway.model import Relation
from imagesearch_services.gateway.search.answer import AppliedThreshold
from imagesearch_services.gateway.tokens import invalid_token

LIFETIME_S = 600
"""Seconds from the first page until a token expires."""
MAX_ITEMS = 1000
"""Maximum matches of a search that can be paged through."""
VERSION = 1
"""Version of the token format."""

_MAC_BYTES = 16
_UID_BYTES = 16
_WHOLE = 255
"""Region index of a match of the whole query."""
_MAX_BODY_BYTES = 128 * 1024
"""Maximum bytes of an unpacked token; a forged token that unpacks to more is refused."""
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class PinnedMatch:
    """A match of a later page."""

    uid: bytes
    relation: Relation
    score: float
    similarity: float
    false_positive_rate: float
    region: int | None
    """Index in the regions of the ranking; None: the whole query matched."""
    instances: Sequence[Quadrilateral] = ()
    """Outlines of the occurrences of an element in the query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedRanking:
    """The ranking of a search, without the matches of earlier pages."""

    library_id: str
    library_uid: str
    request: Mapping[str, str]
    """Fingerprints of the first request's fields; later requests may omit but not change them."""
    total_found: int
    total_is_lower_bound: bool
    searched_region: Box | None
    query_info: PictureInfo | None
    subjects: Sequence[Subject] = ()
    chosen_subject: int | None = None
    warnings: Sequence[str] = ()
    thresholds: Sequence[AppliedThreshold]
    regions: Sequence[Box]
    matches: Sequence[PinnedMatch]
    expires_at_s: float = 0.0
    """Seconds since 1970 UTC; set in the first token of a search and kept in the next ones."""


class PageTokens:
    """Encodes and decodes page tokens."""

    def __init__(self, key: bytes, now_s: Callable[[], float]) -> None:
        """Sign with `key`; `now_s` returns the seconds since 1970 UTC."""
        self._key = key
        self._now_s = now_s

    def encode(self, ranking: PinnedRanking) -> str:
        """Return a token for a ranking of at most `MAX_ITEMS` matches."""
        if not ranking.expires_at_s:
            ranking = replace(ranking, expires_at_s=self._now_s() + LIFETIME_S)
        body = zlib.compress(_pack(ranking), 1)
        version = bytes([VERSION])
        token = version + self._mac(version + body) + body
        return base64.urlsafe_b64encode(token).decode().rstrip("=")

    def decode(self, text: str) -> PinnedRanking:
        """Return the ranking that a token holds.

        Raises:
            ServiceError: PAGE_TOKEN_INVALID or PAGE_TOKEN_EXPIRED.
        """
        token = _from_base64(text)
        version, mac, body = token[:1], token[1 : 1 + _MAC_BYTES], token[1 + _MAC_BYTES :]
        if version != bytes([VERSION]) or not hmac.compare_digest(mac, self._mac(version + body)):
            raise invalid_token("it was not issued by this service, or was altered")
        try:
            ranking = _unpack(_inflate(body))
        except (ValueError, KeyError, TypeError, IndexError, struct.error, zlib.error):
            raise invalid_token("it was not issued by this service") from None
        if self._now_s() >= ranking.expires_at_s:
            raise ServiceError(
                Reason.PAGE_TOKEN_EXPIRED,
                f"the page token is older than {LIFETIME_S // 60} minutes: repeat the search",
                fields=[FieldViolation("page_token", "expired")],
            )
        return ranking

    def _mac(self, message: bytes) -> bytes:
        return hmac.digest(self._key, message, "sha256")[:_MAC_BYTES]


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise invalid_token("it was not issued by this service") from None


def _inflate(body: bytes) -> bytes:
    inflater = zlib.decompressobj()
    raw = inflater.decompress(body, _MAX_BODY_BYTES)
    if not inflater.eof:
        raise ValueError("longer than any valid token")
    return raw


def _pack(ranking: PinnedRanking) -> bytes:
    header = {
        "library": [ranking.library_id, ranking.library_uid],
        "expires": ranking.expires_at_s,
        "request": dict(ranking.request),
        "total": [ranking.total_found, ranking.total_is_lower_bound],
        "searched": _box_values(ranking.searched_region),
        "info": asdict(ranking.query_info) if ranking.query_info else None,
        "subjects": [asdict(subject) for subject in ranking.subjects],
        "chosen": ranking.chosen_subject,
        "warnings": list(ranking.warnings),
        "thresholds": [
            [
                int(threshold.relation),
                threshold.min_score,
                threshold.false_positive_rate,
                threshold.extrapolated,
            ]
            for threshold in ranking.thresholds
        ],
        "regions": [_box_values(box) for box in ranking.regions],
        "count": len(ranking.matches),
        "instances": [
            [[round(edge, 2) for corner in place for edge in corner] for place in match.instances]
            for match in ranking.matches
        ]
        if any(match.instances for match in ranking.matches)
        else None,
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    matches = ranking.matches
    columns = (
        b"".join(match.uid for match in matches),
        bytes(match.relation for match in matches),
        bytes(_WHOLE if match.region is None else match.region for match in matches),
        _floats(match.score for match in matches),
        _floats(match.similarity for match in matches),
        _floats(match.false_positive_rate for match in matches),
    )
    return b"".join((_LENGTH.pack(len(text)), text, *columns))


def _unpack(raw: bytes) -> PinnedRanking:
    (length,) = _LENGTH.unpack_from(raw)
    start = _LENGTH.size + length
    header: dict[str, Any] = json.loads(raw[_LENGTH.size : start])
    count = int(header["count"])
    if len(raw) != start + count * (_UID_BYTES + 2 + 3 * 4):
        raise ValueError("wrong length")
    columns = memoryview(raw)[start:]
    uids, rest = columns[: count * _UID_BYTES], columns[count * _UID_BYTES :]
    relations, regions = rest[:count], rest[count : 2 * count]
    numbers = rest[2 * count :]
    scores, similarities, rates = (
        _from_floats(numbers[column * count * 4 : (column + 1) * count * 4]) for column in range(3)
    )
    info = header["info"]
    instances = header["instances"] or [()] * count
    return PinnedRanking(
        library_id=header["library"][0],
        library_uid=header["library"][1],
        expires_at_s=header["expires"],
        request=header["request"],
        total_found=header["total"][0],
        total_is_lower_bound=header["total"][1],
        searched_region=_box(header["searched"]),
        query_info=PictureInfo(**info) if info else None,
        subjects=tuple(_subject(values) for values in header["subjects"]),
        chosen_subject=header["chosen"],
        warnings=tuple(header["warnings"]),
        thresholds=[
            AppliedThreshold(Relation(relation), min_score, rate, extrapolated)
            for relation, min_score, rate, extrapolated in header["thresholds"]
        ],
        regions=[Box(*values) for values in header["regions"]],
        matches=[
            PinnedMatch(
                uid=bytes(uids[row * _UID_BYTES : (row + 1) * _UID_BYTES]),
                relation=Relation(relations[row]),
                score=scores[row],
                similarity=similarities[row],
                false_positive_rate=rates[row],
                region=None if regions[row] == _WHOLE else regions[row],
                instances=tuple(_quadrilateral(values) for values in instances[row]),
            )
            for row in range(count)
        ],
    )


def _subject(values: Mapping[str, Any]) -> Subject:
    category = values["category"]
    return Subject(
        box=Box(*values["box"]),
        category=None if category is None else Category(category),
        score=values["score"],
        colors=tuple(Color(**color) for color in values["colors"]),
        attributes=tuple(Attribute(**attribute) for attribute in values["attributes"]),
    )


def _quadrilateral(values: Sequence[float]) -> Quadrilateral:
    return tuple(zip(values[::2], values[1::2], strict=True))


def _box_values(box: Box | None) -> list[float] | None:
    return [box.x_min, box.y_min, box.x_max, box.y_max] if box else None


def _box(values: Sequence[float] | None) -> Box | None:
    return Box(*values) if values else None


def _floats(values: Any) -> bytes:
    column = array("f", values)
    if _BIG_ENDIAN:
        column.byteswap()
    return column.tobytes()


def _from_floats(raw: memoryview) -> array[float]:
    column = array("f")
    column.frombytes(raw)
    if _BIG_ENDIAN:
        column.byteswap()
    return column


_BIG_ENDIAN = struct.pack("=H", 1) != struct.pack("<H", 1)
