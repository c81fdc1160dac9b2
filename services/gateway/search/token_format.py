"""Binary format of a pinned ranking: a JSON header, then the matches by column.

Numbers are little-endian and stored by column, which compresses better than by row. Reading checks
the type and range of every value, although only a holder of the key can make a token.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

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
from imagesearch_services.gateway.search.pinned_ranking import PinnedMatch, PinnedRanking
from imagesearch_services.gateway.tokens import fingerprints, integer, number, text

MAX_ITEMS = 1000
"""Maximum matches of a search that can be paged through."""

_UID_BYTES = 16
_WHOLE = 255
"""Region index of a match of the whole query."""
_LENGTH = struct.Struct("<I")
_CORNERS = 4
_MAX_COUNT = 2**31 - 1
_MAX_FLOAT = 3.4e38
"""Largest number of a column, which holds single precision."""


def pack_ranking(ranking: PinnedRanking) -> bytes:
    """Return the bytes of a ranking."""
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


def unpack_ranking(raw: bytes) -> PinnedRanking:
    """Read a ranking.

    Raises:
        ValueError, TypeError, KeyError, IndexError, struct.error, RecursionError: it is malformed.
    """
    (length,) = _LENGTH.unpack_from(raw)
    start = _LENGTH.size + length
    header: dict[str, Any] = json.loads(raw[_LENGTH.size : start])
    if not isinstance(header, dict):
        raise TypeError("not an object")
    count = integer(header["count"], 0, MAX_ITEMS)
    if len(raw) != start + count * (_UID_BYTES + 2 + 3 * 4):
        raise ValueError("wrong length")
    regions = [_box(values) for values in header["regions"]]
    subjects = tuple(_subject(values) for values in header["subjects"])
    chosen = header["chosen"]
    total_found, is_lower_bound = header["total"]
    library_id, library_uid = header["library"]
    return PinnedRanking(
        library_id=text(library_id),
        library_uid=text(library_uid),
        expires_at_s=number(header["expires"], 0, _MAX_FLOAT),
        request=fingerprints(header["request"]),
        total_found=integer(total_found, 0, _MAX_COUNT),
        total_is_lower_bound=_boolean(is_lower_bound),
        searched_region=None if header["searched"] is None else _box(header["searched"]),
        query_info=None if header["info"] is None else _info(header["info"]),
        subjects=subjects,
        chosen_subject=None if chosen is None else integer(chosen, 0, len(subjects) - 1),
        warnings=tuple(map(text, header["warnings"])),
        thresholds=[_threshold(values) for values in header["thresholds"]],
        regions=regions,
        matches=_matches(memoryview(raw)[start:], count, len(regions), header["instances"]),
    )


def _matches(
    columns: memoryview, count: int, region_count: int, instances: Sequence[Any] | None
) -> list[PinnedMatch]:
    uids, rest = columns[: count * _UID_BYTES], columns[count * _UID_BYTES :]
    relations, regions, numbers = rest[:count], rest[count : 2 * count], rest[2 * count :]
    scores, similarities, rates = (
        _from_floats(numbers[column * count * 4 : (column + 1) * count * 4]) for column in range(3)
    )
    places = [()] * count if instances is None else instances
    if len(places) != count:
        raise ValueError("wrong number of outlines")
    return [
        PinnedMatch(
            uid=bytes(uids[row * _UID_BYTES : (row + 1) * _UID_BYTES]),
            relation=Relation(relations[row]),
            score=_number(scores[row]),
            similarity=_number(similarities[row]),
            false_positive_rate=_number(rates[row]),
            region=None if regions[row] == _WHOLE else integer(regions[row], 0, region_count - 1),
            instances=tuple(_quadrilateral(values) for values in places[row]),
        )
        for row in range(count)
    ]


def _threshold(values: Any) -> AppliedThreshold:
    relation, min_score, rate, extrapolated = values
    return AppliedThreshold(
        Relation(relation), _number(min_score), _number(rate), _boolean(extrapolated)
    )


def _subject(values: Any) -> Subject:
    category = values["category"]
    return Subject(
        box=_box(values["box"]),
        category=None if category is None else Category(category),
        score=_number(values["score"]),
        colors=tuple(
            Color(text(color["name"]), text(color["hex"]), _number(color["share"]))
            for color in values["colors"]
        ),
        attributes=tuple(
            Attribute(text(found["name"]), text(found["value"]), _number(found["score"]))
            for found in values["attributes"]
        ),
    )


def _info(values: Any) -> PictureInfo:
    return PictureInfo(
        width=integer(values["width"], 0, _MAX_COUNT),
        height=integer(values["height"], 0, _MAX_COUNT),
        size_bytes=integer(values["size_bytes"], 0, 2**63 - 1),
        sha256=text(values["sha256"]),
        media_type=text(values["media_type"]),
        sharpness=_number(values["sharpness"]),
    )


def _quadrilateral(values: Any) -> Quadrilateral:
    numbers = [_number(value) for value in values]
    if len(numbers) != 2 * _CORNERS:
        raise ValueError("not four corners")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _box(values: Any) -> Box:
    x_min, y_min, x_max, y_max = map(_number, values)
    return Box(x_min, y_min, x_max, y_max)


def _number(value: object) -> float:
    return number(value, -_MAX_FLOAT, _MAX_FLOAT)


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("not a boolean")
    return value


def _box_values(box: Box | None) -> list[float] | None:
    return [box.x_min, box.y_min, box.x_max, box.y_max] if box else None


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
