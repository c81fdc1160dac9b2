"""Servicer of the public RPCs: reads the request, calls the domain, writes the response."""

# ruff: noqa: N802, ARG002  # names and arguments are those of the generated base class

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc.aio
from google.protobuf import empty_pb2

from imagesearch.gateway.v1 import (
    image_pb2,
    image_search_service_pb2,
    image_search_service_pb2_grpc,
    library_pb2,
    search_pb2,
    server_info_pb2,
)
from imagesearch_services.common.concurrency import in_order
from imagesearch_services.common.errors import ServiceError
from imagesearch_services.gateway import names
from imagesearch_services.gateway.admission import Admission
from imagesearch_services.gateway.contract import limits
from imagesearch_services.gateway.contract.batches import (
    read_new_images,
    read_searches,
    write_added_images,
    write_search_answers,
)
from imagesearch_services.gateway.contract.comparisons import read_comparison, write_comparison
from imagesearch_services.gateway.contract.duplicates import (
    read_duplicates_request,
    read_rejected_pairs,
    write_duplicates,
)
from imagesearch_services.gateway.contract.fields import DEFAULT_PAGE_SIZE
from imagesearch_services.gateway.contract.filter_parser import parse_filter
from imagesearch_services.gateway.contract.images import (
    read_image_changes,
    read_images_to_delete,
    read_new_image,
    write_image,
    write_thumbnail,
)
from imagesearch_services.gateway.contract.libraries import (
    read_library_changes,
    read_library_fields,
    read_library_type,
    write_library,
)
from imagesearch_services.gateway.contract.searches import (
    read_detection,
    read_search,
    write_detection,
    write_search_answer,
)
from imagesearch_services.gateway.duplicates.finder import DuplicateFinder
from imagesearch_services.gateway.library.images import Images
from imagesearch_services.gateway.library.libraries import Libraries
from imagesearch_services.gateway.patience import patiently
from imagesearch_services.gateway.scoring.comparison import Comparisons
from imagesearch_services.gateway.search.annotations import Drawings
from imagesearch_services.gateway.search.answer import SearchAnswer
from imagesearch_services.gateway.search.request import SearchRequest
from imagesearch_services.gateway.search.searches import Searches

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

# Read from the descriptor, because reflection serves only files that are imported.
SERVICE: str = image_search_service_pb2.DESCRIPTOR.services_by_name["ImageSearchService"].full_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """Parts of the domain that the servicer calls."""

    libraries: Libraries
    images: Images
    searches: Searches
    duplicates: DuplicateFinder
    drawings: Drawings
    comparisons: Comparisons
    admission: Admission
    server_info: server_info_pb2.ServerInfo


class ImageSearchServicer(image_search_service_pb2_grpc.ImageSearchServiceServicer):
    """imagesearch.gateway.v1.ImageSearchService."""

    def __init__(
        self, domain: Domain, *, batch_concurrency: int, on_overload: Callable[[], None]
    ) -> None:
        """Prepare to serve.

        Args:
            domain: parts of the domain.
            batch_concurrency: maximum searches of one batch that run at the same time.
            on_overload: called when a service refuses a search of a batch.
        """
        self._libraries = domain.libraries
        self._images = domain.images
        self._searches = domain.searches
        self._duplicates = domain.duplicates
        self._drawings = domain.drawings
        self._comparisons = domain.comparisons
        self._admission = domain.admission
        self._server_info = domain.server_info
        self._batch_concurrency = batch_concurrency
        self._on_overload = on_overload

    async def CreateLibrary(
        self, request: library_pb2.CreateLibraryRequest, context: Context
    ) -> library_pb2.Library:
        library = await self._libraries.create(
            names.check_library_id(request.library_id, field="library_id"),
            read_library_type(request.library.type),
            read_library_fields(request.library),
            limits.check_request_id(request.request_id),
        )
        return write_library(library)

    async def GetLibrary(
        self, request: library_pb2.GetLibraryRequest, context: Context
    ) -> library_pb2.Library:
        library_id = names.parse_library_name(request.name, field="name")
        return write_library(await self._libraries.get(library_id))

    async def ListLibraries(
        self, request: library_pb2.ListLibrariesRequest, context: Context
    ) -> library_pb2.ListLibrariesResponse:
        page = await self._libraries.page(
            limits.check_page_size(request.page_size, default=DEFAULT_PAGE_SIZE),
            limits.check_page_token(request.page_token),
        )
        return library_pb2.ListLibrariesResponse(
            libraries=[write_library(library) for library in page.libraries],
            next_page_token=page.next_page_token,
        )

    async def UpdateLibrary(
        self, request: library_pb2.UpdateLibraryRequest, context: Context
    ) -> library_pb2.Library:
        library = await self._libraries.update(
            names.parse_library_name(request.library.name, field="library.name"),
            read_library_changes(request),
            limits.check_request_id(request.request_id),
        )
        return write_library(library)

    async def DeleteLibrary(
        self, request: library_pb2.DeleteLibraryRequest, context: Context
    ) -> empty_pb2.Empty:
        await self._libraries.delete(
            names.parse_library_name(request.name, field="name"),
            limits.check_request_id(request.request_id),
        )
        return empty_pb2.Empty()

    async def AddImage(
        self, request: image_pb2.AddImageRequest, context: Context
    ) -> image_pb2.Image:
        library_id = names.parse_library_name(request.parent, field="parent")
        image = read_new_image(request)
        with self._admission.admit(request.ByteSize()):
            return write_image(await self._images.add(library_id, image))

    async def BatchAddImages(
        self, request: image_pb2.BatchAddImagesRequest, context: Context
    ) -> image_pb2.BatchAddImagesResponse:
        library_id = names.parse_library_name(request.parent, field="parent")
        images = read_new_images(request)
        with self._admission.admit(request.ByteSize()):
            return write_added_images(await self._images.add_all(library_id, images))

    async def GetImage(
        self, request: image_pb2.GetImageRequest, context: Context
    ) -> image_pb2.Image:
        library_id, image_id = names.parse_image_name(request.name, field="name")
        return write_image(await self._images.get(library_id, image_id))

    async def ListImages(
        self, request: image_pb2.ListImagesRequest, context: Context
    ) -> image_pb2.ListImagesResponse:
        page = await self._images.page(
            names.parse_library_name(request.parent, field="parent"),
            parse_filter(request.filter),
            limits.check_page_size(request.page_size, default=DEFAULT_PAGE_SIZE),
            limits.check_page_token(request.page_token),
        )
        return image_pb2.ListImagesResponse(
            images=[write_image(image) for image in page.images],
            next_page_token=page.next_page_token,
            total_size=page.total_count,
        )

    async def UpdateImage(
        self, request: image_pb2.UpdateImageRequest, context: Context
    ) -> image_pb2.Image:
        library_id, image_id = names.parse_image_name(request.image.name, field="image.name")
        image = await self._images.update(
            library_id,
            image_id,
            read_image_changes(request),
            limits.check_request_id(request.request_id),
        )
        return write_image(image)

    async def DeleteImage(
        self, request: image_pb2.DeleteImageRequest, context: Context
    ) -> empty_pb2.Empty:
        library_id, image_id = names.parse_image_name(request.name, field="name")
        await self._images.delete(library_id, image_id, limits.check_request_id(request.request_id))
        return empty_pb2.Empty()

    async def DeleteImages(
        self, request: image_pb2.DeleteImagesRequest, context: Context
    ) -> image_pb2.DeleteImagesResponse:
        library_id = names.parse_library_name(request.parent, field="parent")
        request_id = limits.check_request_id(request.request_id)
        selection = read_images_to_delete(request, library_id)
        if isinstance(selection, list):
            count = await self._images.delete_ids(library_id, selection, request_id)
        else:
            count = await self._images.delete_matching(library_id, selection, request_id)
        return image_pb2.DeleteImagesResponse(deleted_count=count)

    async def SearchImages(
        self, request: search_pb2.SearchImagesRequest, context: Context
    ) -> search_pb2.SearchImagesResponse:
        search = read_search(request)
        with self._admission.admit(request.ByteSize()):
            return write_search_answer(await self._search(search))

    async def BatchSearchImages(
        self, request: search_pb2.BatchSearchImagesRequest, context: Context
    ) -> search_pb2.BatchSearchImagesResponse:
        searches = read_searches(request)
        with self._admission.admit(request.ByteSize()):
            async with aclosing(
                in_order(self._search_or_error, searches, ahead=self._batch_concurrency)
            ) as results:
                return write_search_answers([result async for result in results])

    async def DetectSubjects(
        self, request: search_pb2.DetectSubjectsRequest, context: Context
    ) -> search_pb2.DetectSubjectsResponse:
        picture, category, drawing = read_detection(request)
        with self._admission.admit(request.ByteSize()):
            answer = await self._searches.detect(picture, category)
            answer = await self._drawings.add_to_detection(answer, picture, drawing)
        return write_detection(answer)

    async def CompareImages(
        self, request: search_pb2.CompareImagesRequest, context: Context
    ) -> search_pb2.CompareImagesResponse:
        first, second = read_comparison(request)
        with self._admission.admit(request.ByteSize()):
            answer = await self._comparisons.compare(first, second, draw=request.include_overlay)
        return write_comparison(answer)

    async def FindDuplicates(
        self, request: search_pb2.FindDuplicatesRequest, context: Context
    ) -> AsyncIterator[search_pb2.FindDuplicatesResponse]:
        async with aclosing(self._duplicates.find(read_duplicates_request(request))) as updates:
            async for update in updates:
                for response in write_duplicates(update):
                    yield response

    async def RejectPairs(
        self, request: search_pb2.RejectPairsRequest, context: Context
    ) -> search_pb2.RejectPairsResponse:
        library_id, pairs, request_id = read_rejected_pairs(request)
        added_count = await self._duplicates.reject(library_id, pairs, request_id)
        return search_pb2.RejectPairsResponse(added_count=added_count)

    async def GetThumbnail(
        self, request: image_pb2.GetThumbnailRequest, context: Context
    ) -> image_pb2.GetThumbnailResponse:
        library_id, image_id = names.parse_image_name(request.name, field="name")
        return write_thumbnail(await self._images.thumbnail(library_id, image_id))

    async def GetServerInfo(
        self, request: server_info_pb2.GetServerInfoRequest, context: Context
    ) -> server_info_pb2.ServerInfo:
        return self._server_info

    async def _search_or_error(
        self, search: SearchRequest | ServiceError
    ) -> SearchAnswer | ServiceError:
        if isinstance(search, ServiceError):
            return search
        try:
            return await patiently(lambda: self._search(search), self._on_overload)
        except ServiceError as error:
            return error

    async def _search(self, search: SearchRequest) -> SearchAnswer:
        return await self._drawings.add_to_search(await self._searches.search(search), search)
