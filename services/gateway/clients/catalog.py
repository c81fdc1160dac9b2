"""Client of the Catalog service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import grpc.aio
from google.protobuf.field_mask_pb2 import FieldMask

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch.catalog.v1 import catalog_service_pb2_grpc as pb_grpc
from imagesearch_services.common import type_messages
from imagesearch_services.common.channels import call
from imagesearch_services.common.context import time_remaining_s
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import SparseVector
from imagesearch_services.gateway.clients.catalog_errors import (
    with_filter_position,
    with_full_names,
)
from imagesearch_services.gateway.clients.catalog_messages import (
    read_hit,
    read_image,
    read_library,
    read_thumbnail,
    write_entry,
    write_filter,
    write_image_changes,
    write_library_changes,
    write_new_library,
)
from imagesearch_services.gateway.clients.peers import check_health, item_error, wrong_result_count
from imagesearch_services.gateway.filters import Filter
from imagesearch_services.gateway.model import (
    FeaturesHit,
    Hit,
    Library,
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

SERVICE = pb.DESCRIPTOR.services_by_name["CatalogService"]
NEVER_RETRIED = ("GetThumbnails",)
"""Reads that gRPC must not retry: while the blob store hangs, every attempt would wait for it."""

PEER = Reason.CATALOG_UNAVAILABLE

MAX_ENTRIES = 1000
"""Maximum entries that the Catalog returns per call."""

THUMBNAIL_TIME_SHARE = 0.8
"""Share of the remaining time that reading thumbnails may take."""

Response = TypeVar("Response")


class CatalogClient:
    """Calls the Catalog, and translates its errors for callers of the Gateway.

    All methods raise ServiceError: the Catalog's own error, or CATALOG_UNAVAILABLE.
    """

    def __init__(self, channel: grpc.aio.Channel, timeout_s: float) -> None:
        self._channel = channel
        self._stub = pb_grpc.CatalogServiceStub(channel)
        self._timeout_s = timeout_s

    async def create_library(self, library: NewLibrary, request_id: str) -> Library:
        request = pb.CreateLibraryRequest(library=write_new_library(library), request_id=request_id)
        return read_library(await self._call(self._stub.CreateLibrary, request))

    async def get_library(self, library_id: str) -> Library:
        request = pb.GetLibraryRequest(library_id=library_id)
        return read_library(await self._call(self._stub.GetLibrary, request))

    async def page_token_key(self) -> bytes:
        """Return the installation's key for page tokens of the Gateway."""
        request = pb.GetPageTokenKeyRequest()
        return (await self._call(self._stub.GetPageTokenKey, request)).key

    async def list_libraries(self, page_size: int, page_token: str) -> LibraryPage:
        request = pb.ListLibrariesRequest(page_size=page_size, page_token=page_token)
        page = await self._call(self._stub.ListLibraries, request)
        return LibraryPage(
            [read_library(library) for library in page.libraries], page.next_page_token
        )

    async def update_library(self, library_id: str, changes: Changes, request_id: str) -> Library:
        request = pb.UpdateLibraryRequest(
            library=write_library_changes(library_id, changes),
            update_mask=FieldMask(paths=changes),
            request_id=request_id,
        )
        return read_library(await self._call(self._stub.UpdateLibrary, request))

    async def delete_library(self, library_id: str, request_id: str) -> None:
        request = pb.DeleteLibraryRequest(library_id=library_id, request_id=request_id)
        await self._call(self._stub.DeleteLibrary, request)

    async def put_entries(
        self, library_id: str, library_uid: str, entries: Sequence[NewEntry]
    ) -> Sequence[StoredImage | ServiceError]:
        request = pb.PutEntriesRequest(
            library_id=library_id,
            library_uid=library_uid,
            entries=[write_entry(entry) for entry in entries],
            allow_overwrite=[entry.allow_overwrite for entry in entries],
            request_ids=[entry.request_id for entry in entries],
        )
        response = await self._call(self._stub.PutEntries, request)
        if len(response.results) != len(entries):
            raise wrong_result_count("the Catalog", len(response.results), len(entries))
        return [
            with_full_names(item_error(result.error), library_id)
            if result.HasField("error")
            else replace(read_image(library_id, result.entry), warnings=list(result.warnings))
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
        return [read_image(library_id, entry) for entry in response.entries]

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
            filter=write_filter(images) if images else None,
            page_size=page_size,
            page_token=page_token,
            include_vectors=include_vectors,
        )
        page = await self._call(self._stub.ListEntries, request, images)
        return ImagePage(
            [read_image(library_id, entry) for entry in page.entries],
            page.next_page_token,
            page.total_count,
        )

    async def update_image(
        self, library_id: str, image_id: str, changes: Changes, request_id: str
    ) -> StoredImage:
        request = pb.UpdateEntryRequest(
            library_id=library_id,
            entry=write_image_changes(image_id, changes),
            update_mask=FieldMask(paths=changes),
            request_id=request_id,
        )
        return read_image(library_id, await self._call(self._stub.UpdateEntry, request))

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
            filter=write_filter(images) if images else None,
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
        # Thumbnails are optional in responses: leave time to respond without them.
        timeout_s = THUMBNAIL_TIME_SHARE * time_remaining_s(self._timeout_s)
        response = await self._call(self._stub.GetThumbnails, request, timeout_s=timeout_s)
        if len(response.thumbnails) != len(image_ids):
            raise wrong_result_count("the Catalog", len(response.thumbnails), len(image_ids))
        return response.thumbnails

    async def nearest(self, query: NearestQuery) -> Sequence[Sequence[Hit]]:
        request = pb.QueryEntriesRequest(
            library_id=query.library_id,
            library_uid=query.library_uid,
            vectors=[type_messages.write_vector(vector) for vector in query.vectors],
            filter=write_filter(query.filter) if query.filter else None,
            limit=query.limit,
            min_similarity=query.min_similarity,
            include_entries=query.image_count > 0,
            entry_count=query.image_count if query.image_count < query.limit else 0,
            thumbnail_count=query.thumbnail_count,
            distinct_entities=query.distinct_entities,
        )
        response = await self._call(self._stub.QueryEntries, request, query.filter)
        if len(response.results) != len(query.vectors):
            raise wrong_result_count("the Catalog", len(response.results), len(query.vectors))
        error = None
        if response.HasField("thumbnails_error"):
            error = item_error(response.thumbnails_error)
        return [
            [
                read_hit(query.library_id, hit)
                if row >= query.thumbnail_count
                else replace(
                    read_hit(query.library_id, hit), thumbnail=read_thumbnail(hit.entry, error)
                )
                for row, hit in enumerate(result.hits)
            ]
            for result in response.results
        ]

    async def candidates(self, query: CandidatesQuery) -> Sequence[bytes]:
        request = pb.QueryEntriesRequest(
            library_id=query.library_id,
            library_uid=query.library_uid,
            filter=write_filter(query.filter) if query.filter else None,
            limit=query.limit,
            merged=True,
        )
        if isinstance(query.descriptors, SparseVector):
            request.sparse_vector.CopyFrom(type_messages.write_sparse_vector(query.descriptors))
        else:
            request.merged_hits_per_vector = query.limit_per_vector
            request.vectors.extend(
                type_messages.write_vector(vector) for vector in query.descriptors
            )
        response = await self._call(self._stub.QueryEntries, request, query.filter)
        if len(response.results) != 1:
            raise wrong_result_count("the Catalog", len(response.results), 1)
        return [hit.uid for hit in response.results[0].hits]

    async def get_features(
        self, library_id: str, uids: Sequence[bytes], *, library_uid: str
    ) -> Sequence[FeaturesHit]:
        features: list[FeaturesHit] = []
        for start in range(0, len(uids), MAX_ENTRIES):
            request = pb.GetEntriesRequest(
                library_id=library_id,
                library_uid=library_uid,
                uids=uids[start : start + MAX_ENTRIES],
                # Older Catalogs ignore features_only and need this field.
                include_features=True,
                features_only=True,
            )
            response = await self._call(self._stub.GetEntries, request)
            features += (FeaturesHit(entry.uid, entry.features) for entry in response.entries)
        return features

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
        await check_health(self._channel, SERVICE.full_name)

    async def _call(
        self,
        method: Callable[..., Awaitable[Response]],
        request: Any,
        sent_filter: Filter | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Response:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            return await call(method, request, peer=PEER, timeout_s=timeout_s)
        except ServiceError as error:
            library_id = getattr(request, "library_id", "")
            raise with_filter_position(with_full_names(error, library_id), sent_filter) from error
