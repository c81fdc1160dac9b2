"""The border of the contract: protobuf messages ↔ the domain's own types."""

from __future__ import annotations

from collections.abc import Sequence

from imagesearch.embedding.v1 import embedding_service_pb2 as pb
from imagesearch.type.v1 import geometry_pb2, library_type_pb2, model_pb2, picture_pb2
from imagesearch_services.common.errors import ServiceError
from imagesearch_services.common.status import to_status
from imagesearch_services.embedding.embed import EmbeddedPicture, EmbeddedRegion, Item, Timings
from imagesearch_services.embedding.geometry import Box
from imagesearch_services.embedding.models import Model
from imagesearch_services.embedding.pictures import PictureInfo


def read_item(item: pb.EmbedImageItem) -> Item:
    return Item(
        content=item.image.content,
        regions=tuple(
            Box(region.x_min, region.y_min, region.x_max, region.y_max) for region in item.regions
        ),
        max_proposed_regions=item.max_proposed_regions,
    )


def served_model(model: Model) -> pb.ServedModel:
    return pb.ServedModel(
        model=model_pb2.ModelVersion(role=model.role, name=model.name, version=model.version),
        space=model.space,
        dimensions=model.dimensions,
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
    )


def _embedded_region(region: EmbeddedRegion, spaces: Sequence[str]) -> pb.EmbeddedRegion:
    box = region.box
    return pb.EmbeddedRegion(
        box=geometry_pb2.Box(x_min=box.x_min, y_min=box.y_min, x_max=box.x_max, y_max=box.y_max),
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
    """List the steps that were made; regions are not proposed in every call."""
    steps = {
        "decode": timings.decode_s,
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
