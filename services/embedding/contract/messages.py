"""Converts messages of the Embedding contract from and to the domain's types."""

from __future__ import annotations

from collections.abc import Sequence

from imagesearch.embedding.v1 import embedding_service_pb2 as pb
from imagesearch.type.v1 import model_pb2
from imagesearch_services.common.errors import ServiceError, field_error
from imagesearch_services.common.status import to_status
from imagesearch_services.common.type_messages import (
    read_box,
    read_category,
    read_quadrilateral,
    write_box,
    write_library_type,
    write_model_version,
    write_picture_info,
    write_subject,
    write_timing,
)
from imagesearch_services.embedding.comparison.comparing import Comparison
from imagesearch_services.embedding.comparison.copies import CopyEvidence
from imagesearch_services.embedding.drawing.drawer import Request as DrawingRequest
from imagesearch_services.embedding.drawing.drawer import ThumbnailFile
from imagesearch_services.embedding.drawing.rendering import Annotation
from imagesearch_services.embedding.embed.embedder import Detection
from imagesearch_services.embedding.embed.items import (
    EmbeddedPicture,
    EmbeddedRegion,
    Item,
)
from imagesearch_services.embedding.inference.models import Model

CORNERS = 4


def read_items(items: Sequence[pb.EmbedImageItem]) -> list[Item]:
    return [
        Item(
            content=item.image.content,
            regions=tuple(read_box(region) for region in item.regions),
            max_proposed_regions=item.max_proposed_regions,
            subject_detection=item.subject_detection,
            category=read_category(item.category, field=f"items[{index}].category"),
        )
        for index, item in enumerate(items)
    ]


def write_served_model(model: Model, dimensions: int) -> pb.ServedModel:
    """Write a model with the dimensions of its space, which include those of a joined model."""
    return pb.ServedModel(
        model=write_model_version(model.model_version),
        space=model.space,
        dimensions=dimensions,
        library_types=[write_library_type(library_type) for library_type in model.library_types],
    )


def write_embed_result(
    outcome: EmbeddedPicture | ServiceError, spaces: Sequence[str]
) -> pb.EmbedImageResult:
    if isinstance(outcome, ServiceError):
        return pb.EmbedImageResult(error=to_status(outcome))
    return pb.EmbedImageResult(
        info=write_picture_info(outcome.info),
        regions=[_write_region(region, spaces) for region in outcome.regions],
        thumbnail=outcome.thumbnail,
        subjects=[write_subject(subject) for subject in outcome.subjects],
        chosen_subject=outcome.chosen_subject,
    )


def _write_region(region: EmbeddedRegion, spaces: Sequence[str]) -> pb.EmbeddedRegion:
    return pb.EmbeddedRegion(
        box=write_box(region.box),
        vectors=[
            model_pb2.Vector(
                space=space,
                values=vector.astype("<f4", copy=False).tobytes(),
                background_similarity=background_similarity,
            )
            for space, vector, background_similarity in zip(
                spaces, region.vectors, region.background_similarities, strict=True
            )
        ],
        source=region.source,
        subject=None if region.subject is None else write_subject(region.subject),
    )


def write_detection(detection: Detection) -> pb.DetectSubjectsResponse:
    return pb.DetectSubjectsResponse(
        subjects=[write_subject(subject) for subject in detection.subjects],
        info=write_picture_info(detection.info),
        models=[write_model_version(model) for model in detection.models],
        timings=map(write_timing, detection.timings),
    )


def write_comparison(comparison: Comparison) -> pb.ComparePicturesResponse:
    return pb.ComparePicturesResponse(
        info_a=write_picture_info(comparison.infos[0]),
        info_b=write_picture_info(comparison.infos[1]),
        measures=comparison.measures,
        edits=[pb.LikelyEdit(name=edit.name, amount=edit.amount) for edit in comparison.edits],
        overlay=comparison.overlay,
        timings=map(write_timing, comparison.timings),
        model=write_model_version(comparison.model),
    )


def write_copy_evidence(evidence: CopyEvidence | None) -> pb.CopyEvidence:
    if evidence is None:
        return pb.CopyEvidence(unreadable=True)
    return pb.CopyEvidence(
        agreement=evidence.agreement,
        contrast_share=evidence.contrast_share,
        bend=evidence.bend,
        shown_of_first=evidence.shown_of_first,
        shown_of_second=evidence.shown_of_second,
        inlier_count=evidence.inlier_count,
    )


def read_drawing(request: pb.DrawAnnotationsRequest) -> DrawingRequest:
    return DrawingRequest(
        content=request.image.content,
        annotations=[
            _read_annotation(annotation, f"annotations[{index}]")
            for index, annotation in enumerate(request.annotations)
        ],
        thumbnails=[
            ThumbnailFile(thumbnail.content, list(thumbnail.lines)) for thumbnail in request.beside
        ],
        media_type=request.media_type,
        max_side_px=request.max_side_px,
    )


def _read_annotation(annotation: pb.Annotation, field: str) -> Annotation:
    has_box, has_corners = annotation.HasField("box"), annotation.HasField("corners")
    if has_box == has_corners:
        raise field_error(field, "must have either a box or corners")
    if has_corners:
        points = list(read_quadrilateral(annotation.corners))
        if len(points) != CORNERS:
            raise field_error(f"{field}.corners", f"has {len(points)} corners; must have {CORNERS}")
    else:
        box = read_box(annotation.box)
        if not (box.x_min < box.x_max and box.y_min < box.y_max):
            raise field_error(f"{field}.box", "must have x_min < x_max and y_min < y_max")
        points = [
            (box.x_min, box.y_min),
            (box.x_max, box.y_min),
            (box.x_max, box.y_max),
            (box.x_min, box.y_max),
        ]
    return Annotation(points, list(annotation.lines), annotation.highlighted)
