"""Conversion between the Catalog's types and those of the Qdrant client."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
from qdrant_client import models

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

WITH_PAYLOAD: dict[Fields, bool | list[str] | models.PayloadSelector] = {
    Fields.NONE: False,
    Fields.ENTITY: ["entity_id", "image_id"],
    Fields.THUMBNAIL: [THUMBNAIL_KEY],
    Fields.FEATURES: [FEATURES_KEY, FEATURES_CHECKSUM_KEY],
    Fields.TAGS: ["tags"],
    Fields.ENTRY: models.PayloadSelectorExclude(exclude=[FEATURES_KEY]),
    Fields.ALL: True,
}


def index_params(name: str, field_type: FieldType) -> models.PayloadSchemaParams:
    links = has_links(name, field_type)
    match field_type:
        case FieldType.STRING:
            return models.KeywordIndexParams(
                type=models.KeywordIndexType.KEYWORD, enable_hnsw=links
            )
        case FieldType.INTEGER:
            return models.IntegerIndexParams(
                type=models.IntegerIndexType.INTEGER, enable_hnsw=links
            )
        case FieldType.FLOAT:
            return models.FloatIndexParams(type=models.FloatIndexType.FLOAT, enable_hnsw=links)
        case FieldType.BOOLEAN:
            return models.BoolIndexParams(type=models.BoolIndexType.BOOL, enable_hnsw=links)


def write_uid(uid: bytes) -> str:
    return str(uuid.UUID(bytes=uid))


def read_uid(point_id: Any) -> bytes:
    return uuid.UUID(str(point_id)).bytes


def write_vector(vector: VectorData) -> Any:
    if isinstance(vector, SparseVector):
        return models.SparseVector(indices=list(vector.indices), values=list(vector.values))
    return np.frombuffer(vector, "<f4").tolist()


def _read_vector(space: str, vector: Any) -> VectorData:
    if isinstance(vector, models.SparseVector):
        return SparseVector(space, tuple(vector.indices), tuple(vector.values))
    return np.asarray(vector, "<f4").tobytes()


def read_record(record: models.Record) -> Record:
    vectors: Any = record.vector or {}
    return Record(
        read_uid(record.id),
        record.payload or {},
        {space: _read_vector(space, vector) for space, vector in vectors.items()},
    )


def write_filter(where: Filter) -> models.Filter:
    condition = _write_condition(where)
    return condition if isinstance(condition, models.Filter) else models.Filter(must=[condition])


def _write_condition(where: Filter) -> models.Condition:
    match where:
        case filters.AllOf(members):
            return models.Filter(must=[_write_condition(member) for member in members])
        case filters.AnyOf(members):
            return models.Filter(should=[_write_condition(member) for member in members])
        case filters.Not(member):
            return models.Filter(must_not=[_write_condition(member)])
        case filters.Exists(name):
            empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=name))
            return models.Filter(must_not=[empty])
        case filters.Match(name, values):
            return models.FieldCondition(key=name, match=_write_match(values))
        case filters.Range(name, gt, gte, lt, lte):
            return models.FieldCondition(
                key=name, range=models.Range(gt=gt, gte=gte, lt=lt, lte=lte)
            )
    raise TypeError(f"the filter is not bound to a library: {where!r}")


def _write_match(values: Sequence[str] | Sequence[int] | Sequence[bool]) -> models.Match:
    if len(values) > 1:
        return models.MatchAny(any=list(values))  # type: ignore[arg-type]  # all of one type
    return models.MatchValue(value=values[0])
