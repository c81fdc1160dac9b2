"""The gRPC servicer: reads the request, calls the domain, writes the response."""

# ruff: noqa: N802, ARG002  # gRPC prescribes the names and parameters of the methods

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any

import grpc.aio

from imagesearch.embedding.v1 import embedding_service_pb2 as pb
from imagesearch.embedding.v1 import embedding_service_pb2_grpc as pb_grpc
from imagesearch_services.common.type_messages import (
    read_box,
    read_category,
    write_model_version,
    write_timing,
)
from imagesearch_services.embedding.call_queue import CallQueue, queue_timings
from imagesearch_services.embedding.comparison.comparing import Comparer
from imagesearch_services.embedding.comparison.copies import CopyChecker
from imagesearch_services.embedding.contract import element_messages, messages
from imagesearch_services.embedding.drawing.drawer import Drawer
from imagesearch_services.embedding.elements.finder import ElementFinder, Purpose
from imagesearch_services.embedding.embed.embedder import Embedder
from imagesearch_services.embedding.embed.query_session import QuerySession
from imagesearch_services.embedding.inference import spaces
from imagesearch_services.embedding.inference.registry import ModelRegistry
from imagesearch_services.embedding.runtime import Runtime

SERVICE: str = pb.DESCRIPTOR.services_by_name["EmbeddingService"].full_name

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """The domain objects that the servicer calls."""

    registry: ModelRegistry
    runtime: Runtime
    embedder: Embedder
    comparer: Comparer
    copies: CopyChecker
    drawer: Drawer
    elements: ElementFinder
    singles: CallQueue
    """Queue of the calls with one picture, or two to compare."""
    batches: CallQueue
    """Queue of the calls with several pictures."""


class EmbeddingServicer(pb_grpc.EmbeddingServiceServicer):
    """Serves imagesearch.embedding.v1.EmbeddingService."""

    def __init__(self, domain: Domain) -> None:
        self._registry = domain.registry
        self._runtime = domain.runtime
        self._embedder = domain.embedder
        self._comparer = domain.comparer
        self._copies = domain.copies
        self._drawer = domain.drawer
        self._elements = domain.elements
        self._singles = domain.singles
        self._batches = domain.batches

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(
            models=[
                *(
                    messages.write_served_model(model, dimensions)
                    for model, dimensions in spaces.served(self._registry)
                ),
                element_messages.write_served_vocabulary(),
            ]
        )

    async def EmbedImages(
        self, request: pb.EmbedImagesRequest, context: Context
    ) -> pb.EmbedImagesResponse:
        async with self._turn(len(request.items)) as waited_s:
            embedded = await self._embedder.embed(
                messages.read_items(request.items),
                list(request.spaces),
                thumbnail_max_side_px=request.thumbnail_max_side_px,
            )
        return pb.EmbedImagesResponse(
            results=[
                messages.write_embed_result(outcome, request.spaces)
                for outcome in embedded.pictures
            ],
            timings=map(write_timing, [*queue_timings(waited_s), *embedded.timings]),
            detection_models=[write_model_version(model) for model in embedded.detection_models],
        )

    async def EmbedQuery(
        self, request_iterator: AsyncIterator[pb.EmbedQueryRequest], context: Context
    ) -> AsyncIterator[pb.EmbedQueryResponse]:
        async with self._turn() as waited_s:
            waiting = queue_timings(waited_s)
            with QuerySession(self._embedder, self._runtime) as session:
                async for request in request_iterator:
                    picture, timings = await session.embed(
                        request.image.content, list(request.spaces), request.max_proposed_regions
                    )
                    yield pb.EmbedQueryResponse(
                        result=messages.write_embed_result(picture, request.spaces),
                        timings=map(write_timing, [*waiting, *timings]),
                    )
                    waiting = []

    async def DetectSubjects(
        self, request: pb.DetectSubjectsRequest, context: Context
    ) -> pb.DetectSubjectsResponse:
        async with self._turn() as waited_s:
            detection = await self._embedder.detect(
                request.image.content,
                read_box(request.region) if request.HasField("region") else None,
                read_category(request.category, field="category"),
            )
        return messages.write_detection(
            replace(detection, timings=[*queue_timings(waited_s), *detection.timings])
        )

    async def ExtractFeatures(
        self, request: pb.ExtractFeaturesRequest, context: Context
    ) -> pb.ExtractFeaturesResponse:
        async with self._turn(len(request.items)) as waited_s:
            extraction = await self._elements.extract(
                messages.read_items(request.items),
                Purpose(request.for_query, request.thumbnail_max_side_px, request.regional_space),
            )
        return element_messages.write_extraction(
            replace(extraction, timings=[*queue_timings(waited_s), *extraction.timings]),
            request.regional_space,
        )

    async def VerifyFeatures(
        self, request: pb.VerifyFeaturesRequest, context: Context
    ) -> pb.VerifyFeaturesResponse:
        verification = await self._elements.verify(
            request.query_features, element_messages.read_candidates(request)
        )
        return element_messages.write_verification(verification)

    async def ComparePictures(
        self, request: pb.ComparePicturesRequest, context: Context
    ) -> pb.ComparePicturesResponse:
        async with self._turn() as waited_s:
            comparison = await self._comparer.compare(
                request.image_a.content, request.image_b.content, draw=request.include_overlay
            )
        return messages.write_comparison(
            replace(comparison, timings=[*queue_timings(waited_s), *comparison.timings])
        )

    async def CheckCopies(
        self, request: pb.CheckCopiesRequest, context: Context
    ) -> pb.CheckCopiesResponse:
        results = await self._copies.check(
            [image.content for image in request.images],
            [(pair.first, pair.second) for pair in request.pairs],
        )
        return pb.CheckCopiesResponse(results=map(messages.write_copy_evidence, results))

    async def DrawAnnotations(
        self, request: pb.DrawAnnotationsRequest, context: Context
    ) -> pb.DrawAnnotationsResponse:
        drawing = await self._drawer.draw(messages.read_drawing(request))
        return pb.DrawAnnotationsResponse(content=drawing.content, media_type=drawing.media_type)

    def _turn(self, pictures: int = 1) -> AbstractAsyncContextManager[float]:
        """Wait for the turn of a call; calls that continue a search, or check copies, have none."""
        return self._singles.turn() if pictures <= 1 else self._batches.turn(pictures)
