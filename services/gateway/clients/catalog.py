"""The Catalog as the Gateway sees it: imagesearch.catalog.v1 ↔ the model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

import grpc.aio
from google.protobuf.field_mask_pb2 import FieldMask

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch.catalog.v1 import catalog_service_pb2_grpc as pb_grpc
from imagesearch.catalog.v1 import filter_pb2
from imagesearch.type.v1 import category_pb2, library_type_pb2
from imagesearch_services.common import type_messages
from imagesearch_services.common.channels import call
from imagesearch_services.common.context import time_remaining_s
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import LibraryType, SparseVector, TagValue
from imagesearch_services.gateway import names
from imagesearch_services.gateway.clients.peers import check_health, item_error
from imagesearch_services.gateway.filters import (
    AllOf,
    AnyOf,
    Comparison,
    Filter,
    Not,
    Operator,
    comparisons,
    filter_error,
)
from imagesearch_services.gateway.model import (
    FeaturesHit,
    Hit,
    ImageFields,
    Library,
    LibraryFields,
    NewEntry,
    NewLibrary,
    StoredImage,
)
from imagesearch_services.gateway.ports import (
    CandidatesQuery,
    Changes,
    ImagePage,
    LibraryPage,
    NearestQuery,
)

SERVICE = "imagesearch.catalog.v1.CatalogService"
PEER = Reason.CATALOG_UNAVAILABLE

MOST_ENTRIES = 1000
"""That the Catalog gives in one answer."""

THUMBNAIL_TIME_SHARE = 0.8
"""Of the time that is left, what small pictures may take."""

Response = TypeVar("Response")

_OPERATORS = {
    Operator.EQUAL: filter_pb2.Condition.OPERATOR_EQUAL,
    Operator.NOT_EQUAL: filter_pb2.Condition.OPERATOR_NOT_EQUAL,
    Operator.LESS: filter_pb2.Condition.OPERATOR_LESS,
    Operator.LESS_OR_EQUAL: filter_pb2.Condition.OPERATOR_LESS_OR_EQUAL,
    Operator.GREATER: filter_pb2.Condition.OPERATOR_GREATER,
    Operator.GREATER_OR_EQUAL: filter_pb2.Condition.OPERATOR_GREATER_OR_EQUAL,
    Operator.HAS: filter_pb2.Condition.OPERATOR_HAS,
}

_VALUE_KINDS: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "float",
    type(None): "nothing",
}
"""As the Catalog calls the kinds of values in its refusals."""


class CatalogClient:
    """Calls the Catalog."""

    def __init__(self, channel: grpc.aio.Channel, timeout_s: float) -> None:
        self._channel = channel
        self._stub = pb_grpc.CatalogServiceStub(channel)
        self._timeout_s = timeout_s

    async def create_library(self, library: NewLibrary, request_id: str) -> Library:
        message = pb.Library(
            library_id=library.library_id,
            type=_library_type_message(library.type),
            spaces=[
                pb.VectorSpace(
                    name=served.model.space,
                    dimensions=served.dimensions,
                    sparse=not served.dimensions,
                    # Elements that are near are looked at closely before anything is said.
                    compact=library.type is LibraryType.ELEMENT,
                )
                for served in library.models
            ],
            models=[type_messages.write_model_version(served.model) for served in library.models],
            display_name=library.fields.display_name,
            description=library.fields.description,
            capacity=library.fields.capacity,
            thumbnails_disabled=library.fields.thumbnails_disabled,
        )
        request = pb.CreateLibraryRequest(library=message, request_id=request_id)
        return _library(await self._call(self._stub.CreateLibrary, request))

    async def get_library(self, library_id: str) -> Library:
        request = pb.GetLibraryRequest(library_id=library_id)
        return _library(await self._call(self._stub.GetLibrary, request))

    async def list_libraries(self, page_size: int, page_token: str) -> LibraryPage:
        request = pb.ListLibrariesRequest(page_size=page_size, page_token=page_token)
        page = await self._call(self._stub.ListLibraries, request)
        return LibraryPage([_library(one) for one in page.libraries], page.next_page_token)

    async def update_library(self, library_id: str, changes: Changes, request_id: str) -> Library:
        message = pb.Library(library_id=library_id)
        for path, value in changes.items():
            setattr(message, path, value)
        request = pb.UpdateLibraryRequest(
            library=message, update_mask=FieldMask(paths=changes), request_id=request_id
        )
        return _library(await self._call(self._stub.UpdateLibrary, request))

    async def delete_library(self, library_id: str, request_id: str) -> None:
        request = pb.DeleteLibraryRequest(library_id=library_id, request_id=request_id)
        await self._call(self._stub.DeleteLibrary, request)

    async def put_entries(
        self, library_id: str, library_uid: str, entries: Sequence[NewEntry]
    ) -> Sequence[StoredImage | ServiceError]:
        request = pb.PutEntriesRequest(
            library_id=library_id,
            library_uid=library_uid,
            entries=[_entry_message(entry) for entry in entries],
            allow_overwrite=[entry.allow_overwrite for entry in entries],
            request_ids=[entry.request_id for entry in entries],
        )
        response = await self._call(self._stub.PutEntries, request)
        if len(response.results) != len(entries):
            raise ServiceError(Reason.INTERNAL, "the catalog left entries out")
        return [
            _named(item_error(result.error), library_id)
            if result.HasField("error")
            else replace(_image(library_id, result.entry), warnings=list(result.warnings))
            for result in response.results
        ]

    async def get_images(
        self,
        library_id: str,
        *,
        image_ids: Sequence[str] = (),
        uids: Sequence[bytes] = (),
        include_vectors: bool = False,
    ) -> Sequence[StoredImage]:
        request = pb.GetEntriesRequest(
            library_id=library_id, image_ids=image_ids, uids=uids, include_vectors=include_vectors
        )
        response = await self._call(self._stub.GetEntries, request)
        return [_image(library_id, entry) for entry in response.entries]

    async def list_images(
        self,
        library_id: str,
        images: Filter | None,
        page_size: int,
        page_token: str,
        *,
        include_vectors: bool = False,
    ) -> ImagePage:
        request = pb.ListEntriesRequest(
            library_id=library_id,
            filter=_filter_message(images) if images else None,
            page_size=page_size,
            page_token=page_token,
            include_vectors=include_vectors,
        )
        page = await self._call(self._stub.ListEntries, request, images)
        return ImagePage(
            [_image(library_id, entry) for entry in page.entries],
            page.next_page_token,
            page.total_count,
        )

    async def update_image(
        self, library_id: str, image_id: str, changes: Changes, request_id: str
    ) -> StoredImage:
        message = pb.Entry(image_id=image_id)
        for path, value in changes.items():
            _set_change(message, path, value)
        request = pb.UpdateEntryRequest(
            library_id=library_id,
            entry=message,
            update_mask=FieldMask(paths=changes),
            request_id=request_id,
        )
        return _image(library_id, await self._call(self._stub.UpdateEntry, request))

    async def delete_images(
        self,
        library_id: str,
        *,
        image_ids: Sequence[str] = (),
        images: Filter | None = None,
        request_id: str,
    ) -> int:
        request = pb.DeleteEntriesRequest(
            library_id=library_id,
            image_ids=image_ids,
            filter=_filter_message(images) if images else None,
            request_id=request_id,
        )
        response = await self._call(self._stub.DeleteEntries, request, images)
        return response.deleted_count

    async def get_thumbnails(
        self, library_id: str, image_ids: Sequence[str], *, library_uid: str = ""
    ) -> Sequence[bytes]:
        if not image_ids:
            return []
        request = pb.GetThumbnailsRequest(
            library_id=library_id, library_uid=library_uid, image_ids=image_ids
        )
        # What they belong to is at hand already: leave time to answer without them.
        timeout_s = THUMBNAIL_TIME_SHARE * time_remaining_s(self._timeout_s)
        response = await self._call(self._stub.GetThumbnails, request, timeout_s=timeout_s)
        if len(response.thumbnails) != len(image_ids):
            raise ServiceError(Reason.INTERNAL, "the catalog left thumbnails out")
        return response.thumbnails

    async def nearest(self, query: NearestQuery) -> Sequence[Sequence[Hit]]:
        request = pb.QueryEntriesRequest(
            library_id=query.library_id,
            library_uid=query.library_uid,
            vectors=[type_messages.write_vector(vector) for vector in query.vectors],
            filter=_filter_message(query.filter) if query.filter else None,
            limit=query.limit,
            min_similarity=query.min_similarity,
            include_entries=query.image_count > 0,
            entry_count=query.image_count if query.image_count < query.limit else 0,
            thumbnail_count=query.thumbnail_count,
            distinct_entities=query.distinct_entities,
        )
        response = await self._call(self._stub.QueryEntries, request, query.filter)
        if len(response.results) != len(query.vectors):
            raise ServiceError(Reason.INTERNAL, "the catalog left queries out")
        error = None
        if response.HasField("thumbnails_error"):
            error = item_error(response.thumbnails_error)
        return [
            [
                Hit(
                    hit.uid,
                    hit.similarity,
                    _image(query.library_id, hit.entry) if hit.HasField("entry") else None,
                    _thumbnail(hit.entry, error) if row < query.thumbnail_count else None,
                )
                for row, hit in enumerate(result.hits)
            ]
            for result in response.results
        ]

    async def candidates(self, query: CandidatesQuery) -> Sequence[bytes]:
        request = pb.QueryEntriesRequest(
            library_id=query.library_id,
            library_uid=query.library_uid,
            filter=_filter_message(query.filter) if query.filter else None,
            limit=query.limit,
            merged=True,
        )
        if isinstance(query.by, SparseVector):
            request.sparse_vector.CopyFrom(type_messages.write_sparse_vector(query.by))
        else:
            request.merged_hits_per_vector = query.limit_per_vector
            request.vectors.extend(type_messages.write_vector(one) for one in query.by)
        response = await self._call(self._stub.QueryEntries, request, query.filter)
        if len(response.results) != 1:
            raise ServiceError(Reason.INTERNAL, "the catalog left queries out")
        return [hit.uid for hit in response.results[0].hits]

    async def get_features(
        self, library_id: str, uids: Sequence[bytes], *, library_uid: str
    ) -> Sequence[FeaturesHit]:
        found: list[FeaturesHit] = []
        for start in range(0, len(uids), MOST_ENTRIES):
            request = pb.GetEntriesRequest(
                library_id=library_id,
                library_uid=library_uid,
                uids=uids[start : start + MOST_ENTRIES],
                # Catalogs that are older than features alone give the entries with them.
                include_features=True,
                features_only=True,
            )
            response = await self._call(self._stub.GetEntries, request)
            found += (FeaturesHit(one.uid, one.features) for one in response.entries)
        return found

    async def reject_pairs(
        self, library_id: str, pairs: Sequence[tuple[str, str]], request_id: str
    ) -> int:
        request = pb.RejectPairsRequest(
            library_id=library_id,
            pairs=[pb.EntryPair(image_id_a=a, image_id_b=b) for a, b in pairs],
            request_id=request_id,
        )
        return (await self._call(self._stub.RejectPairs, request)).added_count

    async def rejected_pairs(
        self, library_id: str, image_ids: Sequence[str]
    ) -> Sequence[tuple[str, str]]:
        request = pb.FilterRejectedPairsRequest(library_id=library_id, image_ids=image_ids)
        pairs: list[tuple[str, str]] = []
        while True:
            page = await self._call(self._stub.FilterRejectedPairs, request)
            pairs += ((pair.image_id_a, pair.image_id_b) for pair in page.rejected_pairs)
            if not page.next_page_token:
                return pairs
            request.page_token = page.next_page_token

    async def check(self) -> None:
        await check_health(self._channel, SERVICE)

    async def _call(
        self,
        method: Callable[..., Awaitable[Response]],
        request: Any,
        asked: Filter | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Response:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            return await call(method, request, peer=PEER, timeout_s=timeout_s)
        except ServiceError as error:
            library_id = getattr(request, "library_id", "")
            raise _placed(_named(error, library_id), asked) from error


def _named(error: ServiceError, library_id: str) -> ServiceError:
    """Give the Catalog's bare ids as the full names that our callers know."""
    metadata = dict(error.metadata)
    if library := metadata.get("library"):
        metadata["library"] = names.library_name(library.removeprefix(names.LIBRARIES))
    image = metadata.get("image")
    if image and library_id and not image.startswith(names.LIBRARIES):
        metadata["image"] = names.image_name(library_id, image)
    error.metadata = metadata
    return error


def _placed(error: ServiceError, asked: Filter | None) -> ServiceError:
    """Say where in the filter string a fault is that only the Catalog could find.

    It knows the types of a library's tags, and says of which field it speaks.
    """
    fault = next((one for one in error.fields if one.field == "filter"), None)
    if asked is None or fault is None:
        return error
    field, _, description = fault.description.partition(": ")
    suspects = [one for one in comparisons(asked) if one.field == field]
    if not suspects:
        return error
    guilty = next(
        (one for one in suspects if description.endswith(_VALUE_KINDS[type(one.value)])),
        suspects[0],
    )
    return filter_error(guilty.position, fault.description)


def _library_type_message(value: LibraryType) -> library_type_pb2.LibraryType.ValueType:
    return cast("library_type_pb2.LibraryType.ValueType", int(value))


def _library(message: pb.Library) -> Library:
    return Library(
        library_id=message.library_id,
        uid=message.uid,
        type=LibraryType(message.type),
        fields=LibraryFields(
            display_name=message.display_name,
            description=message.description,
            capacity=message.capacity,
            thumbnails_disabled=message.thumbnails_disabled,
        ),
        models=[type_messages.read_model_version(model) for model in message.models],
        image_count=message.entry_count,
        unindexed_vector_count=message.unindexed_vector_count,
        create_time=type_messages.read_time(message.create_time),
        update_time=type_messages.read_time(message.update_time),
    )


def _entry_message(entry: NewEntry) -> pb.Entry:
    fields = entry.fields
    return pb.Entry(
        image_id=entry.image_id,
        entity_id=fields.entity_id,
        category=_category_message(fields.category or 0),
        tags={name: type_messages.write_tag(value) for name, value in fields.tags.items()},
        custom_content=fields.custom_content,
        region=type_messages.write_box(entry.region),
        info=type_messages.write_picture_info(entry.info),
        vectors=[type_messages.write_vector(vector) for vector in entry.vectors],
        sparse_vectors=[type_messages.write_sparse_vector(entry.words)] if entry.words else [],
        features=entry.features,
        subject=type_messages.write_subject(entry.subject) if entry.subject else None,
        thumbnail=entry.thumbnail,
    )


def _category_message(number: int) -> category_pb2.Category.ValueType:
    return cast("category_pb2.Category.ValueType", int(number))


def _image(library_id: str, entry: pb.Entry) -> StoredImage:
    return StoredImage(
        library_id=library_id,
        image_id=entry.image_id,
        uid=entry.uid,
        fields=ImageFields(
            entity_id=entry.entity_id,
            category=type_messages.read_category(entry.category),
            tags=type_messages.read_tags(entry.tags),
            custom_content=entry.custom_content,
        ),
        region=type_messages.read_box(entry.region) if entry.HasField("region") else None,
        info=type_messages.read_picture_info(entry.info),
        create_time=type_messages.read_time(entry.create_time),
        update_time=type_messages.read_time(entry.update_time),
        subject=type_messages.read_subject(entry.subject) if entry.HasField("subject") else None,
        vectors=[type_messages.read_vector(vector) for vector in entry.vectors],
        has_thumbnail=entry.has_thumbnail,
    )


def _thumbnail(entry: pb.Entry, error: ServiceError | None) -> bytes | ServiceError | None:
    """Give a hit's small picture; None where it is to be asked for: older Catalogs gave none."""
    return entry.thumbnail if entry.thumbnail or not entry.has_thumbnail else error


def _set_change(message: pb.Entry, path: str, value: object) -> None:
    if path == "tags":
        for name, tag in cast("dict[str, TagValue]", value).items():
            message.tags[name].CopyFrom(type_messages.write_tag(tag))
    elif path.startswith("tags."):
        if value is not None:
            tag = cast("TagValue", value)
            message.tags[path.removeprefix("tags.")].CopyFrom(type_messages.write_tag(tag))
    elif path == "category":
        message.category = _category_message(cast("int", value or 0))
    else:
        setattr(message, path, value)


def _filter_message(value: Filter) -> filter_pb2.Filter:
    match value:
        case AllOf(members):
            return filter_pb2.Filter(all_of=_filter_list(members))
        case AnyOf(members):
            return filter_pb2.Filter(any_of=_filter_list(members))
        case Not(member):
            return filter_pb2.Filter(negation=_filter_message(member))
        case Comparison(field, operator, operand):
            return filter_pb2.Filter(
                condition=filter_pb2.Condition(
                    field=field,
                    operator=_OPERATORS[operator],
                    value=None if operand is None else type_messages.write_tag(operand),
                )
            )


def _filter_list(members: Sequence[Filter]) -> filter_pb2.FilterList:
    return filter_pb2.FilterList(filters=[_filter_message(member) for member in members])
