"""The border to protobuf: messages of imagesearch.catalog.v1 ↔ domain objects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch.catalog.v1 import filter_pb2
from imagesearch.type.v1 import tag_pb2
from imagesearch_services.catalog.batch import PutItem
from imagesearch_services.catalog.filters import AllOf, AnyOf, Condition, Filter, Not, Operator
from imagesearch_services.catalog.model import (
    Entry,
    Library,
    LibraryStats,
    VectorSpace,
)
from imagesearch_services.catalog.queries import Found, Hit, Query
from imagesearch_services.catalog.rejections import Pair
from imagesearch_services.catalog.requests import RequestKey
from imagesearch_services.common import type_messages
from imagesearch_services.common.errors import ServiceError, field_error, missing_field
from imagesearch_services.common.status import to_status
from imagesearch_services.common.types import LibraryType, SparseVector, TagValue

OPERATORS = {
    filter_pb2.Condition.OPERATOR_EQUAL: Operator.EQUAL,
    filter_pb2.Condition.OPERATOR_NOT_EQUAL: Operator.NOT_EQUAL,
    filter_pb2.Condition.OPERATOR_LESS: Operator.LESS,
    filter_pb2.Condition.OPERATOR_LESS_OR_EQUAL: Operator.LESS_OR_EQUAL,
    filter_pb2.Condition.OPERATOR_GREATER: Operator.GREATER,
    filter_pb2.Condition.OPERATOR_GREATER_OR_EQUAL: Operator.GREATER_OR_EQUAL,
    filter_pb2.Condition.OPERATOR_HAS: Operator.HAS,
}

MICROSECONDS = 1_000_000


def read_request_key(request: Message, request_id: str) -> RequestKey:
    """Tell this call from any other: by its method's request message, whole."""
    if not request_id:
        return RequestKey("", "")
    body = request.SerializeToString(deterministic=True)
    digest = hashlib.sha256(request.DESCRIPTOR.full_name.encode() + b"\0" + body)
    return RequestKey(request_id, digest.hexdigest())


def read_library(message: pb.Library) -> Library:
    """Read what CreateLibrary reads."""
    return Library(
        library_id=message.library_id,
        uid="",
        type=_read_library_type(message.type),
        spaces=tuple(
            VectorSpace(space.name, space.dimensions, space.sparse, space.compact)
            for space in message.spaces
        ),
        models=tuple(map(type_messages.read_model_version, message.models)),
        display_name=message.display_name,
        description=message.description,
        capacity=message.capacity,
        thumbnails_disabled=message.thumbnails_disabled,
    )


def write_library(library: Library, stats: LibraryStats) -> pb.Library:
    return pb.Library(
        library_id=library.library_id,
        uid=library.uid,
        type=type_messages.write_library_type(library.type),
        spaces=[
            pb.VectorSpace(
                name=space.name,
                dimensions=space.dimensions,
                sparse=space.sparse,
                compact=space.compact,
            )
            for space in library.spaces
        ],
        models=map(type_messages.write_model_version, library.models),
        display_name=library.display_name,
        description=library.description,
        capacity=library.capacity,
        thumbnails_disabled=library.thumbnails_disabled,
        entry_count=stats.entry_count,
        unindexed_vector_count=stats.unindexed_vector_count,
        create_time=write_time(library.create_time),
        update_time=write_time(library.update_time),
    )


def read_put_items(request: pb.PutEntriesRequest) -> list[PutItem | ServiceError]:
    """Read entries with their terms; one that can't be read is its own error."""
    for name, values in (
        ("allow_overwrite", request.allow_overwrite),
        ("request_ids", request.request_ids),
    ):
        if values and len(values) != len(request.entries):
            raise field_error(name, "must be empty or as many as entries")
    return [_read_put_item(request, number) for number in range(len(request.entries))]


def write_put_result(result: Entry | ServiceError) -> pb.PutEntryResult:
    if isinstance(result, ServiceError):
        return pb.PutEntryResult(error=to_status(result))
    return pb.PutEntryResult(entry=write_entry(result), warnings=result.warnings)


def read_entry(message: pb.Entry, field: str) -> Entry:
    """Read an entry of a request; uid and times are not the caller's."""
    vectors = {vector.space: vector.values for vector in message.vectors}
    sparse = {
        vector.space: type_messages.read_sparse_vector(vector) for vector in message.sparse_vectors
    }
    if len(vectors) + len(sparse) < len(message.vectors) + len(message.sparse_vectors):
        raise field_error(f"{field}.vectors", "must be one for each space")
    return Entry(
        image_id=message.image_id,
        entity_id=message.entity_id,
        category=type_messages.read_category(message.category, field=f"{field}.category"),
        tags={
            name: _read_tag(value, f"{field}.tags.{name}") for name, value in message.tags.items()
        },
        custom_content=message.custom_content,
        region=type_messages.read_box(message.region) if message.HasField("region") else None,
        subject=(
            type_messages.read_subject(message.subject, field=f"{field}.subject")
            if message.HasField("subject")
            else None
        ),
        info=type_messages.read_picture_info(message.info) if message.HasField("info") else None,
        vectors={**vectors, **sparse},
        background_similarities={
            vector.space: vector.background_similarity
            for vector in message.vectors
            if vector.background_similarity
        },
        features=message.features,
        thumbnail=message.thumbnail,
    )


def write_entry(entry: Entry) -> pb.Entry:
    message = pb.Entry(
        image_id=entry.image_id,
        uid=entry.uid,
        entity_id=entry.entity_id,
        category=type_messages.write_category(entry.category),
        tags={name: type_messages.write_tag(value) for name, value in entry.tags.items()},
        custom_content=entry.custom_content,
        region=None if entry.region is None else type_messages.write_box(entry.region),
        subject=None if entry.subject is None else type_messages.write_subject(entry.subject),
        info=None if entry.info is None else type_messages.write_picture_info(entry.info),
        create_time=write_time(entry.create_time),
        update_time=write_time(entry.update_time),
        features=entry.features,
        thumbnail=entry.thumbnail,
        has_thumbnail=bool(entry.thumbnail_version),
    )
    for space, vector in sorted(entry.vectors.items()):
        if isinstance(vector, SparseVector):
            message.sparse_vectors.append(type_messages.write_sparse_vector(vector))
        else:
            message.vectors.add(
                space=space,
                values=vector,
                background_similarity=entry.background_similarities.get(space, 0.0),
            )
    return message


def write_features(found: Iterable[tuple[bytes, bytes]]) -> pb.GetEntriesResponse:
    """Write entries of which nothing but uid and features is asked for."""
    return pb.GetEntriesResponse(
        entries=[pb.Entry(uid=uid, features=features) for uid, features in found]
    )


def read_query(request: pb.QueryEntriesRequest) -> Query:
    spaces = {vector.space for vector in request.vectors}
    sparse = None
    if request.HasField("sparse_vector"):
        sparse = type_messages.read_sparse_vector(request.sparse_vector)
        spaces.add(request.sparse_vector.space)
    if (sparse is None) == (not request.vectors):
        raise missing_field("vectors")
    if len(spaces) > 1:
        raise field_error("vectors", "must be of one space")
    return Query(
        library_id=request.library_id,
        library_uid=request.library_uid,
        space=spaces.pop(),
        vectors=[vector.values for vector in request.vectors],
        sparse=sparse,
        filter=read_filter(request.filter) if request.HasField("filter") else None,
        limit=request.limit,
        min_similarity=request.min_similarity if request.HasField("min_similarity") else None,
        include_entries=request.include_entries,
        entry_count=request.entry_count,
        thumbnail_count=request.thumbnail_count,
        distinct_entities=request.distinct_entities,
        merged=request.merged,
        merged_hits_per_vector=request.merged_hits_per_vector,
    )


def read_pairs(pairs: Iterable[pb.EntryPair]) -> list[Pair]:
    return [Pair(pair.image_id_a, pair.image_id_b) for pair in pairs]


def write_pair(pair: Pair) -> pb.EntryPair:
    return pb.EntryPair(image_id_a=pair.a, image_id_b=pair.b)


def write_query_response(found: Found) -> pb.QueryEntriesResponse:
    error = found.thumbnails_error
    return pb.QueryEntriesResponse(
        results=map(_write_query_result, found.hits),
        thumbnails_error=None if error is None else to_status(error),
    )


def _write_query_result(hits: Sequence[Hit]) -> pb.QueryResult:
    return pb.QueryResult(
        hits=[
            pb.Hit(
                uid=hit.uid,
                similarity=hit.similarity,
                entry=None if hit.entry is None else write_entry(hit.entry),
            )
            for hit in hits
        ]
    )


def read_filter(message: filter_pb2.Filter) -> Filter:
    node = message.WhichOneof("node")
    if node == "all_of":
        return AllOf(tuple(map(read_filter, message.all_of.filters)))
    if node == "any_of":
        return AnyOf(tuple(map(read_filter, message.any_of.filters)))
    if node == "negation":
        return Not(read_filter(message.negation))
    if node == "condition":
        return _read_condition(message.condition)
    raise field_error("filter", "a node must be set")


def _read_tag(message: tag_pb2.TagValue, field: str) -> TagValue:
    value = type_messages.read_tag(message)
    if value is None:
        raise missing_field(field)
    return value


def _read_library_type(number: int) -> LibraryType:
    value = type_messages.read_library_type(number, field="library.type")
    if value is None:
        raise missing_field("library.type")
    return value


def write_time(seconds: float) -> Timestamp:
    whole = Timestamp()
    whole.FromMicroseconds(round(seconds * MICROSECONDS))
    return whole


def _read_put_item(request: pb.PutEntriesRequest, number: int) -> PutItem | ServiceError:
    try:
        entry = read_entry(request.entries[number], f"entries[{number}]")
    except ServiceError as error:
        return error
    return PutItem(
        entry,
        allow_overwrite=request.allow_overwrite[number] if request.allow_overwrite else False,
        request_id=request.request_ids[number] if request.request_ids else "",
    )


def _read_condition(message: filter_pb2.Condition) -> Condition:
    operator = OPERATORS.get(message.operator)
    if operator is None:
        raise field_error("filter", f"{message.field}: an operator must be set")
    value = None
    if operator is not Operator.HAS:
        value = _read_tag(message.value, "filter")
    return Condition(message.field, operator, value)
