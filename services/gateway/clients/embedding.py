"""Client of the Embedding service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

import grpc.aio

from imagesearch.embedding.v1 import embedding_service_pb2 as pb
from imagesearch.embedding.v1 import embedding_service_pb2_grpc as pb_grpc
from imagesearch.type.v1 import model_pb2, picture_pb2
from imagesearch_services.common import type_messages
from imagesearch_services.common.channels import call
from imagesearch_services.common.errors import Reason
from imagesearch_services.common.types import Box, Category, StepTiming
from imagesearch_services.gateway.clients.embedding_messages import (
    read_copy_evidence,
    read_described_picture,
    read_embedded_picture,
    read_served_model,
    waited_s,
    write_item,
)
from imagesearch_services.gateway.clients.peers import check_health, wrong_result_count
from imagesearch_services.gateway.clients.query_stream import QueryStream, QueryStreams
from imagesearch_services.gateway.model import (
    DetectionAnswer,
    DrawingOrder,
    FeaturesHit,
    FoundElement,
    PictureToEmbed,
    ServedModel,
)
from imagesearch_services.gateway.ports import CopyEvidence, Described, Embedded, Verified
from imagesearch_services.gateway.scoring.comparison import LikelyEdit, MeasuredPair

SERVICE = pb.DESCRIPTOR.services_by_name["EmbeddingService"]
PEER = Reason.EMBEDDING_UNAVAILABLE


class EmbeddingClient:
    """Calls the Embedding service.

    All methods raise ServiceError: Embedding's own error, or EMBEDDING_UNAVAILABLE.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        timeout_s: float,
        *,
        on_turn: Callable[[int, float], None] = lambda *_: None,
    ) -> None:
        """Prepare to call.

        Args:
            channel: channel to the service.
            timeout_s: maximum duration of a call, in seconds.
            on_turn: called with the number of pictures of each answered call, and the time in
                seconds that the call waited for its turn in Embedding.
        """
        self._on_turn = on_turn
        self._channel = channel
        self._stub = pb_grpc.EmbeddingServiceStub(channel)
        self._timeout_s = timeout_s
        self._query_streams = QueryStreams(
            self._stub.EmbedQuery, timeout_s, on_turn=lambda waited_s: on_turn(1, waited_s)
        )

    async def list_models(self) -> Sequence[ServedModel]:
        response = await call(
            self._stub.ListModels, pb.ListModelsRequest(), peer=PEER, timeout_s=self._timeout_s
        )
        return [read_served_model(served) for served in response.models if served.space]

    async def embed(
        self,
        pictures: Sequence[PictureToEmbed],
        spaces: Sequence[str],
        *,
        thumbnail_max_side_px: int = 0,
    ) -> Embedded:
        request = pb.EmbedImagesRequest(spaces=spaces, thumbnail_max_side_px=thumbnail_max_side_px)
        for picture in pictures:
            write_item(picture, request.items.add())
        response = await call(self._stub.EmbedImages, request, peer=PEER, timeout_s=self._timeout_s)
        if len(response.results) != len(pictures):
            raise wrong_result_count("Embedding", len(response.results), len(pictures))
        return Embedded(
            [read_embedded_picture(result) for result in response.results],
            self._timings(response.timings, len(pictures)),
            [type_messages.read_model_version(model) for model in response.detection_models],
        )

    def open_query(self, content: bytes) -> AbstractAsyncContextManager[QueryStream]:
        return self._query_streams.open(content)

    async def detect(
        self, content: bytes, region: Box | None, category: Category | None
    ) -> DetectionAnswer:
        request = pb.DetectSubjectsRequest(
            region=None if region is None else type_messages.write_box(region),
            category=type_messages.write_category(category),
        )
        request.image.content = content
        response = await call(
            self._stub.DetectSubjects, request, peer=PEER, timeout_s=self._timeout_s
        )
        return DetectionAnswer(
            subjects=[type_messages.read_subject(subject) for subject in response.subjects],
            info=type_messages.read_picture_info(response.info),
            models=[type_messages.read_model_version(model) for model in response.models],
            timings=self._timings(response.timings),
        )

    async def describe(
        self,
        pictures: Sequence[PictureToEmbed],
        *,
        for_query: bool,
        regional_space: str = "",
        thumbnail_max_side_px: int = 0,
    ) -> Described:
        request = pb.ExtractFeaturesRequest(
            for_query=for_query,
            regional_space=regional_space,
            thumbnail_max_side_px=thumbnail_max_side_px,
        )
        for picture in pictures:
            write_item(picture, request.items.add())
        response = await call(
            self._stub.ExtractFeatures, request, peer=PEER, timeout_s=self._timeout_s
        )
        if len(response.results) != len(pictures):
            raise wrong_result_count("Embedding", len(response.results), len(pictures))
        return Described(
            [read_described_picture(result) for result in response.results],
            self._timings(response.timings, len(pictures)),
        )

    async def verify(self, query_features: bytes, candidates: Sequence[FeaturesHit]) -> Verified:
        request = pb.VerifyFeaturesRequest(
            query_features=query_features,
            candidates=[
                pb.StoredFeatures(id=str(row), features=candidate.features)
                for row, candidate in enumerate(candidates)
            ],
        )
        response = await call(
            self._stub.VerifyFeatures, request, peer=PEER, timeout_s=self._timeout_s
        )
        detected = [
            FoundElement(
                element.id,
                element.evidence,
                [
                    type_messages.read_quadrilateral(instance.corners)
                    for instance in element.instances
                ],
            )
            for element in response.elements
        ]
        return Verified(detected, type_messages.read_timings(response.timings))

    async def draw(self, order: DrawingOrder) -> bytes:
        request = pb.DrawAnnotationsRequest(
            media_type=order.options.media_type, max_side_px=order.options.max_side_px
        )
        request.image.content = order.content
        for outline in order.outlines:
            annotation = request.annotations.add(
                lines=outline.lines, highlighted=outline.is_highlighted
            )
            if isinstance(outline.shape, Box):
                annotation.box.CopyFrom(type_messages.write_box(outline.shape))
            else:
                for x, y in outline.shape:
                    annotation.corners.corners.add(x=x, y=y)
        for captioned in order.matches:
            request.beside.add(content=captioned.content, lines=captioned.lines)
        response = await call(
            self._stub.DrawAnnotations, request, peer=PEER, timeout_s=self._timeout_s
        )
        return bytes(response.content)

    async def compare(self, first: bytes, second: bytes, *, draw: bool) -> MeasuredPair:
        request = pb.ComparePicturesRequest(include_overlay=draw)
        request.image_a.content = first
        request.image_b.content = second
        response = await call(
            self._stub.ComparePictures, request, peer=PEER, timeout_s=self._timeout_s
        )
        return MeasuredPair(
            infos=(
                type_messages.read_picture_info(response.info_a),
                type_messages.read_picture_info(response.info_b),
            ),
            measures=dict(response.measures),
            edits=[
                LikelyEdit(edit.name, edit.amount if edit.HasField("amount") else None)
                for edit in response.edits
            ],
            overlay=response.overlay,
            model=type_messages.read_model_version(response.model),
            timings=self._timings(response.timings),
        )

    async def check_copies(
        self, pictures: Sequence[bytes], pairs: Sequence[tuple[int, int]]
    ) -> Sequence[CopyEvidence | None]:
        request = pb.CheckCopiesRequest(
            images=[picture_pb2.ImageContent(content=content) for content in pictures],
            pairs=[pb.PicturePair(first=first, second=second) for first, second in pairs],
        )
        response = await call(self._stub.CheckCopies, request, peer=PEER, timeout_s=self._timeout_s)
        if len(response.results) != len(pairs):
            raise wrong_result_count("Embedding", len(response.results), len(pairs))
        return [read_copy_evidence(result) for result in response.results]

    async def check(self) -> None:
        await check_health(self._channel, SERVICE.full_name)

    def _timings(
        self, messages: Sequence[model_pb2.StepTiming], pictures: int = 1
    ) -> list[StepTiming]:
        """Read timings, and report how long the call waited for its turn."""
        timings = type_messages.read_timings(messages)
        self._on_turn(pictures, waited_s(timings))
        return timings
