"""The border of the contract: protobuf messages ↔ the domain's own types."""

from __future__ import annotations

from collections.abc import Sequence

from imagesearch.embedding.v1 import embedding_service_pb2 as pb
from imagesearch.type.v1 import (
    category_pb2,
    geometry_pb2,
    library_type_pb2,
    model_pb2,
    picture_pb2,
    subject_pb2,
)
from imagesearch_services.common.errors import ServiceError, field_error
from imagesearch_services.common.status import to_status
from imagesearch_services.common.types import Box, PictureInfo
from imagesearch_services.embedding.comparison.comparing import Comparison
from imagesearch_services.embedding.copies import CopyEvidence
from imagesearch_services.embedding.drawing.drawer import Request as DrawingRequest
from imagesearch_services.embedding.drawing.drawer import Small
from imagesearch_services.embedding.drawing.drawing import Annotation
from imagesearch_services.embedding.embed import Detection
from imagesearch_services.embedding.items import (
    EmbeddedPicture,
    EmbeddedRegion,
    Item,
    Subject,
    Timings,
)
from imagesearch_services.embedding.models import Model

CATEGORY = "CATEGORY_"
CORNERS = 4
"""Prefix of the contract's categories."""


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


def read_box(box: geometry_pb2.Box) -> Box:
    return Box(box.x_min, box.y_min, box.x_max, box.y_max)


def read_category(number: int, *, field: str) -> str:
    """Give a category's name; empty where none is asked for."""
    if not number:
        return ""
    known = category_pb2.Category.DESCRIPTOR.values_by_number.get(number)
    if known is None:
        raise field_error(field, f"{number} is no category")
    return str(known.name).removeprefix(CATEGORY)


def served_model(model: Model, dimensions: int) -> pb.ServedModel:
    """Tell of a model; `dimensions` are those of its space, which another may join."""
    return pb.ServedModel(
        model=model_version(model),
        space=model.space,
        dimensions=dimensions,
        library_types=[
            library_type_pb2.LibraryType.Value(f"LIBRARY_TYPE_{each}")
            for each in model.library_types
        ],
    )


def embed_image_result(
    outcome: EmbeddedPicture | ServiceError, spaces: Sequence[str]
) -> pb.EmbedImageResult:
    if isinstance(outcome, ServiceError):
        return pb.EmbedImageResult(error=to_status(outcome))
    return pb.EmbedImageResult(
        info=picture_info(outcome.info),
        regions=[_embedded_region(region, spaces) for region in outcome.regions],
        thumbnail=outcome.thumbnail,
        subjects=[_subject(subject) for subject in outcome.subjects],
        chosen_subject=outcome.chosen_subject,
    )


def detect_subjects_response(detection: Detection) -> pb.DetectSubjectsResponse:
    return pb.DetectSubjectsResponse(
        subjects=[_subject(subject) for subject in detection.subjects],
        info=picture_info(detection.info),
        models=[model_version(model) for model in detection.models],
        timings=step_timings(detection.timings),
    )


def compare_pictures_response(comparison: Comparison) -> pb.ComparePicturesResponse:
    return pb.ComparePicturesResponse(
        info_a=picture_info(comparison.infos[0]),
        info_b=picture_info(comparison.infos[1]),
        measures=comparison.measures,
        edits=[pb.LikelyEdit(name=edit.name, amount=edit.amount) for edit in comparison.edits],
        overlay=comparison.overlay,
        timings=[
            model_pb2.StepTiming(step=step, duration_ms=1e3 * duration_s)
            for step, duration_s in comparison.timings
        ],
        model=model_version(comparison.model),
    )


def copy_evidence(evidence: CopyEvidence | None) -> pb.CopyEvidence:
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


def model_version(model: Model) -> model_pb2.ModelVersion:
    return model_pb2.ModelVersion(role=model.role, name=model.name, version=model.version)


def _embedded_region(region: EmbeddedRegion, spaces: Sequence[str]) -> pb.EmbeddedRegion:
    return pb.EmbeddedRegion(
        box=_box(region.box),
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
        subject=None if region.subject is None else _subject(region.subject),
    )


def _box(box: Box) -> geometry_pb2.Box:
    return geometry_pb2.Box(x_min=box.x_min, y_min=box.y_min, x_max=box.x_max, y_max=box.y_max)


def _subject(subject: Subject) -> subject_pb2.Subject:
    return subject_pb2.Subject(
        box=_box(subject.box),
        category=category_pb2.Category.Value(CATEGORY + subject.category),
        score=subject.score,
        colors=[
            subject_pb2.Color(name=color.name, hex=color.hex, share=color.share)
            for color in subject.colors
        ],
        attributes=[
            subject_pb2.Attribute(name=one.name, value=one.value, score=one.score)
            for one in subject.attributes
        ],
    )


def picture_info(info: PictureInfo) -> picture_pb2.PictureInfo:
    return picture_pb2.PictureInfo(
        width=info.width,
        height=info.height,
        size_bytes=info.size_bytes,
        sha256=info.sha256,
        media_type=info.media_type,
        sharpness=info.sharpness,
    )


def step_timings(timings: Timings) -> list[model_pb2.StepTiming]:
    """List the steps that were made: regions and subjects are not looked for in every call."""
    steps = {
        "decode": timings.decode_s,
        "find_subjects": timings.find_subjects_s,
        "propose_regions": timings.propose_regions_s,
        "preprocess": timings.preprocess_s,
        "infer": timings.infer_s,
        "total": timings.total_s,
    }
    return [
        model_pb2.StepTiming(step=step, duration_ms=1e3 * duration_s)
        for step, duration_s in steps.items()
        if duration_s
    ]


def read_drawing(request: pb.DrawAnnotationsRequest) -> DrawingRequest:
    return DrawingRequest(
        content=request.image.content,
        annotations=[
            _annotation(each, f"annotations[{index}]")
            for index, each in enumerate(request.annotations)
        ],
        beside=[Small(each.content, list(each.lines)) for each in request.beside],
        media_type=request.media_type,
        max_side_px=request.max_side_px,
    )


def _annotation(annotation: pb.Annotation, field: str) -> Annotation:
    has_box, has_corners = annotation.HasField("box"), annotation.HasField("corners")
    if has_box == has_corners:
        raise field_error(field, "must have either a box or corners")
    if has_corners:
        points = [(point.x, point.y) for point in annotation.corners.corners]
        if len(points) != CORNERS:
            raise field_error(f"{field}.corners", f"must be {CORNERS}, not {len(points)}")
    else:
        box = annotation.box
        if not (box.x_min < box.x_max and box.y_min < box.y_max):
            raise field_error(f"{field}.box", "must have x_min < x_max and y_min < y_max")
        points = [
            (box.x_min, box.y_min),
            (box.x_max, box.y_min),
            (box.x_max, box.y_max),
            (box.x_min, box.y_max),
        ]
    return Annotation(points, list(annotation.lines), annotation.highlighted)
