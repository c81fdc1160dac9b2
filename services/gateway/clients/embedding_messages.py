"""Conversion of `imagesearch.embedding.v1` messages from and to the Gateway's model."""

from __future__ import annotations

from collections.abc import Iterable

from imagesearch.embedding.v1 import embedding_service_pb2 as pb
from imagesearch_services.common import type_messages
from imagesearch_services.common.errors import ServiceError
from imagesearch_services.common.types import QUEUE_STEP, LibraryType, StepTiming
from imagesearch_services.gateway.clients.peers import item_error
from imagesearch_services.gateway.model import (
    DescribedPicture,
    EmbeddedPicture,
    EmbeddedRegion,
    PictureToEmbed,
    ServedModel,
)
from imagesearch_services.gateway.ports import CopyEvidence


def read_served_model(message: pb.ServedModel) -> ServedModel:
    # A later version of Embedding may serve models for library types that are unknown here.
    known_types = {int(library_type) for library_type in LibraryType}
    return ServedModel(
        type_messages.read_model_version(message.model),
        message.dimensions,
        frozenset(LibraryType(number) for number in message.library_types if number in known_types),
    )


def read_copy_evidence(message: pb.CopyEvidence) -> CopyEvidence | None:
    if message.unreadable:
        return None
    return CopyEvidence(
        agreement=message.agreement,
        contrast_share=message.contrast_share,
        bend=message.bend,
        shown_of_first=message.shown_of_first,
        shown_of_second=message.shown_of_second,
        inlier_count=message.inlier_count,
    )


def write_item(picture: PictureToEmbed, item: pb.EmbedImageItem) -> None:
    # Fill the message in place: assigning a message to a field copies it, and pictures are large.
    item.image.content = picture.content
    if picture.region is not None:
        item.regions.append(type_messages.write_box(picture.region))
    item.max_proposed_regions = picture.max_proposed_regions
    item.subject_detection = picture.subject_detection
    item.category = type_messages.write_category(picture.category)


def read_described_picture(result: pb.ExtractFeaturesResult) -> DescribedPicture | ServiceError:
    if result.HasField("error"):
        return item_error(result.error)
    return DescribedPicture(
        type_messages.read_picture_info(result.info),
        type_messages.read_box(result.box),
        type_messages.read_sparse_vector(result.words),
        result.features,
        result.keypoint_count,
        result.thumbnail,
        [type_messages.read_vector(vector) for vector in result.vectors],
        type_messages.read_sparse_vector(result.shape_words),
    )


def read_embedded_picture(result: pb.EmbedImageResult) -> EmbeddedPicture | ServiceError:
    if result.HasField("error"):
        return item_error(result.error)
    return EmbeddedPicture(
        type_messages.read_picture_info(result.info),
        [
            EmbeddedRegion(
                type_messages.read_box(region.box),
                [type_messages.read_vector(vector) for vector in region.vectors],
                type_messages.read_subject(region.subject) if region.HasField("subject") else None,
            )
            for region in result.regions
        ],
        [type_messages.read_subject(subject) for subject in result.subjects],
        result.chosen_subject if result.HasField("chosen_subject") else None,
        result.thumbnail,
    )


def waited_s(timings: Iterable[StepTiming]) -> float:
    """Return the time that a call waited for its turn in Embedding, in seconds."""
    return sum(timing.duration_ms for timing in timings if timing.step == QUEUE_STEP) / 1e3
