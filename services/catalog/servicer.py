"""The gRPC servicer: converts messages and calls the domain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf.empty_pb2 import Empty

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch.catalog.v1 import catalog_service_pb2_grpc as pb_grpc
from imagesearch_services.catalog.contract import messages
from imagesearch_services.catalog.contract.filters import read_filter
from imagesearch_services.catalog.entry.entries import Entries
from imagesearch_services.catalog.entry.puts import Puts
from imagesearch_services.catalog.library.libraries import Libraries
from imagesearch_services.catalog.model import Library, LibraryStats
from imagesearch_services.catalog.queries import Queries
from imagesearch_services.catalog.rejections import Rejections
from imagesearch_services.catalog.thumbnails.reader import Thumbnails
from imagesearch_services.catalog.token_key import TokenKey
from imagesearch_services.common.errors import field_error, missing_field


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """The operations of the service, by resource."""

    libraries: Libraries
    entries: Entries
    puts: Puts
    queries: Queries
    thumbnails: Thumbnails
    rejections: Rejections
    token_key: TokenKey


class CatalogServicer(pb_grpc.CatalogServiceServicer):
    """`imagesearch.catalog.v1.CatalogService`; the proto documents the RPCs."""

    def __init__(self, domain: Domain) -> None:
        self._libraries = domain.libraries
        self._entries = domain.entries
        self._puts = domain.puts
        self._queries = domain.queries
        self._thumbnails = domain.thumbnails
        self._rejections = domain.rejections
        self._token_key = domain.token_key

    async def CreateLibrary(  # noqa: N802  # named by the contract
        self, request: pb.CreateLibraryRequest, context: Any
    ) -> pb.Library:
        del context
        key = messages.read_request_key(request, request.request_id)
        library = await self._libraries.create(messages.read_library(request.library), key)
        return messages.write_library(library, LibraryStats(0, 0))

    async def GetLibrary(  # noqa: N802
        self, request: pb.GetLibraryRequest, context: Any
    ) -> pb.Library:
        del context
        return await self._with_stats(await self._libraries.get(_required(request.library_id)))

    async def ListLibraries(  # noqa: N802
        self, request: pb.ListLibrariesRequest, context: Any
    ) -> pb.ListLibrariesResponse:
        del context
        page, token = await self._libraries.list_page(request.page_size, request.page_token)
        return pb.ListLibrariesResponse(
            libraries=[messages.write_library(library, stats) for library, stats in page],
            next_page_token=token,
        )

    async def UpdateLibrary(  # noqa: N802
        self, request: pb.UpdateLibraryRequest, context: Any
    ) -> pb.Library:
        del context
        paths = request.update_mask.paths
        if not paths:
            raise missing_field("update_mask")
        for path in paths:
            if path not in pb.Library.DESCRIPTOR.fields_by_name:
                raise field_error("update_mask", f"{path} is not a field of Library")
        library = await self._libraries.update(
            _required(request.library.library_id, "library.library_id"),
            {path: getattr(request.library, path) for path in paths},
            messages.read_request_key(request, request.request_id),
        )
        return await self._with_stats(library)

    async def DeleteLibrary(  # noqa: N802
        self, request: pb.DeleteLibraryRequest, context: Any
    ) -> Empty:
        del context
        key = messages.read_request_key(request, request.request_id)
        await self._libraries.delete(_required(request.library_id), key)
        return Empty()

    async def PutEntries(  # noqa: N802
        self, request: pb.PutEntriesRequest, context: Any
    ) -> pb.PutEntriesResponse:
        del context
        results = await self._puts.put(
            _required(request.library_id), request.library_uid, messages.read_put_items(request)
        )
        return pb.PutEntriesResponse(results=map(messages.write_put_result, results))

    async def GetEntries(  # noqa: N802
        self, request: pb.GetEntriesRequest, context: Any
    ) -> pb.GetEntriesResponse:
        del context
        library_id = _required(request.library_id)
        if request.features_only:
            if request.include_vectors:
                raise field_error("features_only", "can't be combined with include_vectors")
            found = await self._entries.get_features(
                library_id, request.image_ids, request.uids, library_uid=request.library_uid
            )
            return messages.write_features(found)
        entries = await self._entries.get(
            library_id,
            request.image_ids,
            request.uids,
            library_uid=request.library_uid,
            vectors=request.include_vectors,
            features=request.include_features,
        )
        return pb.GetEntriesResponse(entries=map(messages.write_entry, entries))

    async def ListEntries(  # noqa: N802
        self, request: pb.ListEntriesRequest, context: Any
    ) -> pb.ListEntriesResponse:
        del context
        entries, token, total = await self._entries.list_page(
            _required(request.library_id),
            read_filter(request.filter) if request.HasField("filter") else None,
            request.page_size,
            request.page_token,
            vectors=request.include_vectors,
        )
        return pb.ListEntriesResponse(
            entries=map(messages.write_entry, entries), next_page_token=token, total_count=total
        )

    async def UpdateEntry(  # noqa: N802
        self, request: pb.UpdateEntryRequest, context: Any
    ) -> pb.Entry:
        del context
        if not request.update_mask.paths:
            raise missing_field("update_mask")
        entry = await self._entries.update(
            _required(request.library_id),
            messages.read_entry(request.entry, "entry"),
            request.update_mask.paths,
            messages.read_request_key(request, request.request_id),
        )
        return messages.write_entry(entry)

    async def DeleteEntries(  # noqa: N802
        self, request: pb.DeleteEntriesRequest, context: Any
    ) -> pb.DeleteEntriesResponse:
        del context
        count = await self._entries.delete(
            _required(request.library_id),
            request.image_ids,
            read_filter(request.filter) if request.HasField("filter") else None,
            messages.read_request_key(request, request.request_id),
        )
        return pb.DeleteEntriesResponse(deleted_count=count)

    async def QueryEntries(  # noqa: N802
        self, request: pb.QueryEntriesRequest, context: Any
    ) -> pb.QueryEntriesResponse:
        del context
        _required(request.library_id)
        return messages.write_query_response(
            await self._queries.query(messages.read_query(request))
        )

    async def RejectPairs(  # noqa: N802
        self, request: pb.RejectPairsRequest, context: Any
    ) -> pb.RejectPairsResponse:
        del context
        added_count = await self._rejections.add(
            _required(request.library_id),
            messages.read_pairs(request.pairs),
            messages.read_request_key(request, request.request_id),
        )
        return pb.RejectPairsResponse(added_count=added_count)

    async def FilterRejectedPairs(  # noqa: N802
        self, request: pb.FilterRejectedPairsRequest, context: Any
    ) -> pb.FilterRejectedPairsResponse:
        del context
        pairs, token = await self._rejections.list_page(
            _required(request.library_id), request.image_ids, request.page_token
        )
        return pb.FilterRejectedPairsResponse(
            rejected_pairs=map(messages.write_pair, pairs), next_page_token=token
        )

    async def GetPageTokenKey(  # noqa: N802
        self, request: pb.GetPageTokenKeyRequest, context: Any
    ) -> pb.GetPageTokenKeyResponse:
        del request, context
        return pb.GetPageTokenKeyResponse(key=await self._token_key.for_gateway())

    async def GetThumbnails(  # noqa: N802
        self, request: pb.GetThumbnailsRequest, context: Any
    ) -> pb.GetThumbnailsResponse:
        del context
        files = await self._thumbnails.get(
            _required(request.library_id), request.library_uid, request.image_ids
        )
        return pb.GetThumbnailsResponse(thumbnails=files)

    async def _with_stats(self, library: Library) -> pb.Library:
        return messages.write_library(library, await self._libraries.stats(library))


def _required(library_id: str, field: str = "library_id") -> str:
    """Return a library id; raise FIELD_REQUIRED if it is empty."""
    if not library_id:
        raise missing_field(field)
    return library_id
