"""Conversion between the Catalog's types and those of Qdrant Edge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import qdrant_edge as q

from imagesearch_services.catalog import filters
from imagesearch_services.catalog.filters import Filter
from imagesearch_services.catalog.model import FieldType, VectorData
from imagesearch_services.catalog.storage import (
    FEATURES_CHECKSUM_KEY,
    FEATURES_KEY,
    THUMBNAIL_KEY,
    Fields,
    Record,
    has_links,
)
from imagesearch_services.common.types import SparseVector

INDEX_PARAMS = {
    FieldType.STRING: q.KeywordIndexParams,
    FieldType.INTEGER: q.IntegerIndexParams,
    FieldType.FLOAT: q.FloatIndexParams,
    FieldType.BOOLEAN: q.BoolIndexParams,
}

WITH_PAYLOAD: dict[Fields, Any] = {
    Fields.NONE: False,
    Fields.ENTITY: ["entity_id", "image_id"],
    Fields.THUMBNAIL: [THUMBNAIL_KEY],
    Fields.FEATURES: [FEATURES_KEY, FEATURES_CHECKSUM_KEY],
    Fields.TAGS: ["tags"],
    Fields.ENTRY: q.PayloadSelector.Exclude([FEATURES_KEY]),
    Fields.ALL: True,
}


def index_params(field: str, field_type: FieldType) -> Any:
    """Return the parameters of a payload index."""
    return INDEX_PARAMS[field_type](enable_hnsw=has_links(field, field_type))


def write_vector(vector: VectorData) -> Any:
    if isinstance(vector, SparseVector):
        return q.SparseVector(list(vector.indices), list(vector.values))
    return memoryview(vector).cast("f")


def write_filter(where: Filter) -> q.Filter:
    condition = _write_condition(where)
    return condition if isinstance(condition, q.Filter) else q.Filter(must=[condition])


def read_uid(point_id: Any) -> bytes:
    uid: bytes = point_id.bytes
    return uid


def read_record(record: q.Record) -> Record:
    vectors: Any = record.vector or {}
    return Record(
        read_uid(record.id),
        record.payload or {},
        {space: _read_vector(space, vector) for space, vector in vectors.items()},
    )


def _read_vector(space: str, vector: Any) -> VectorData:
    if isinstance(vector, q.SparseVector):
        return SparseVector(space, tuple(vector.indices), tuple(vector.values))
    return np.asarray(vector, "<f4").tobytes()


def _write_condition(where: Filter) -> Any:
    match where:
        case filters.AllOf(members):
            return q.Filter(must=[_write_condition(member) for member in members])
        case filters.AnyOf(members):
            return q.Filter(should=[_write_condition(member) for member in members])
        case filters.Not(member):
            return q.Filter(must_not=[_write_condition(member)])
        case filters.Exists(field):
            return q.Filter(must_not=[q.IsEmptyCondition(field)])
        case filters.Match(field, values):
            return q.FieldCondition(field, match=_write_match(values))
        case filters.Range(field, gt, gte, lt, lte):
            return q.FieldCondition(field, range=q.RangeFloat(gt=gt, gte=gte, lt=lt, lte=lte))
    raise TypeError(f"the filter is not bound to a library: {where!r}")


def _write_match(values: Sequence[str] | Sequence[int] | Sequence[bool]) -> Any:
    if len(values) > 1:
        return q.MatchAny(list(values))  # type: ignore[arg-type]  # all of one type
    value = values[0]
    # The bindings would convert a bool to an integer, since bool is a subclass of int.
    return q.MatchValue(np.bool_(value) if isinstance(value, bool) else value)  # type: ignore[arg-type]
