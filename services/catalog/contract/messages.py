"""Conversions: messages of `imagesearch.catalog.v1` ↔ domain objects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch_services.catalog.answered_requests import RequestKey
from imagesearch_services.catalog.contract.filters import read_filter, read_required_tag
from imagesearch_services.catalog.entry.batch import PutItem
from imagesearch_services.catalog.model import (
    Entry,
    Library,
    LibraryStats,
    VectorSpace,
)
from imagesearch_services.catalog.queries import Hit, Query, QueryResults
from imagesearch_services.catalog.rejected_pairs import Pair
from imagesearch_services.common import type_messages
from imagesearch_services.common.errors import ServiceError, field_error, missing_field
from imagesearch_services.common.status import to_status
from imagesearch_services.common.types import LibraryType, SparseVector

MICROSECONDS_PER_SECOND = 1_000_000


def read_request_key(request: Message, request_id: str) -> RequestKey:
    """Return the identity of a call: its request id and a digest of its whole request."""
    if not request_id:
        return RequestKey("", "")
    body = request.SerializeToString(deterministic=True)
    digest = hashlib.sha256(request.DESCRIPTOR.full_name.encode() + b"\0" + body)
    return RequestKey(request_id, digest.hexdigest())


def read_library(message: pb.Library) -> Library:
    """Read the fields that CreateLibrary uses; uid, counts and times are ignored."""
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
        damaged=stats.damaged,
        create_time=write_time(library.create_time),
        update_time=write_time(library.update_time),
    )


def read_put_items(request: pb.PutEntriesRequest) -> list[PutItem | ServiceError]:
    """Read entries with their options; an entry that can't be read becomes its error.

    Raises:
        ServiceError: FIELD_INVALID if there are not as many options as entries.
    """
    for name, values in (
        ("allow_overwrite", request.allow_overwrite),
        ("request_ids", request.request_ids),
    ):
        if values and len(values) != len(request.entries):
            raise field_error(name, f"must be empty or as many as entries, not {len(values)}")
    return [_read_put_item(request, number) for number in range(len(request.entries))]


def write_put_result(result: Entry | ServiceError) -> pb.PutEntryResult:
    if isinstance(result, ServiceError):
        return pb.PutEntryResult(error=to_status(result))
    return pb.PutEntryResult(entry=write_entry(result), warnings=result.warnings)


def read_entry(message: pb.Entry, field: str) -> Entry:
    """Read an entry of a request; uid and times are ignored.

    Args:
        message: the entry.
        field: path of the entry in the request, for errors.

    Raises:
        ServiceError: FIELD_REQUIRED, FIELD_INVALID.
    """
    vectors = {vector.space: vector.values for vector in message.vectors}
    sparse = {
        vector.space: type_messages.read_sparse_vector(vector) for vector in message.sparse_vectors
    }
    if len(vectors) + len(sparse) < len(message.vectors) + len(message.sparse_vectors):
        raise field_error(f"{field}.vectors", "must not have two vectors of the same space")
    return Entry(
        image_id=message.image_id,
        entity_id=message.entity_id,
        category=type_messages.read_category(message.category, field=f"{field}.category"),
        tags={
            name: read_required_tag(value, f"{field}.tags.{name}")
            for name, value in message.tags.items()
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
    """Write pairs of uid and features as entries without other fields."""
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
        raise field_error("vectors", "must all be of the same space")
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


def write_query_response(found: QueryResults) -> pb.QueryEntriesResponse:
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


def _read_library_type(number: int) -> LibraryType:
    value = type_messages.read_library_type(number, field="library.type")
    if value is None:
        raise missing_field("library.type")
    return value


def write_time(seconds: float) -> Timestamp:
    message = Timestamp()
    message.FromMicroseconds(round(seconds * MICROSECONDS_PER_SECOND))
    return message


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
