"""Converts messages about elements from and to the domain's types."""

from __future__ import annotations

from imagesearch.embedding.v1 import embedding_service_pb2 as pb
from imagesearch.type.v1 import library_type_pb2, model_pb2
from imagesearch_services.common import roles
from imagesearch_services.common.errors import ServiceError
from imagesearch_services.common.status import to_status
from imagesearch_services.common.type_messages import (
    write_box,
    write_model_version,
    write_picture_info,
    write_quadrilateral,
    write_sparse_vector,
    write_timing,
)
from imagesearch_services.common.types import ModelVersion, SparseVector
from imagesearch_services.embedding.elements import vocabulary
from imagesearch_services.embedding.elements.bags import Bag
from imagesearch_services.embedding.elements.finder import Extracted, Extraction, Verification
from imagesearch_services.embedding.elements.fusion import Appearance, Candidate
from imagesearch_services.embedding.elements.regional import Regional


def write_served_vocabulary() -> pb.ServedModel:
    """Write the vocabulary of visual words, which is served without Triton."""
    return pb.ServedModel(
        model=write_model_version(ModelVersion(roles.WORDS, vocabulary.NAME, vocabulary.VERSION)),
        space=vocabulary.SPACE,
        library_types=[library_type_pb2.LIBRARY_TYPE_ELEMENT],
    )


def read_candidates(request: pb.VerifyFeaturesRequest) -> list[Candidate]:
    return [Candidate(stored.id, stored.features) for stored in request.candidates]


def write_extraction(extraction: Extraction, regional_space: str) -> pb.ExtractFeaturesResponse:
    return pb.ExtractFeaturesResponse(
        results=[_write_extracted(outcome, regional_space) for outcome in extraction.pictures],
        timings=map(write_timing, extraction.timings),
    )


def write_verification(verification: Verification) -> pb.VerifyFeaturesResponse:
    return pb.VerifyFeaturesResponse(
        elements=[
            pb.VerifiedElement(
                id=found.id,
                evidence=found.evidence,
                instances=[_write_instance(appearance) for appearance in found.appearances],
            )
            for found in verification.elements
        ],
        timings=map(write_timing, verification.timings),
    )


def _write_extracted(
    outcome: Extracted | ServiceError, regional_space: str
) -> pb.ExtractFeaturesResult:
    if isinstance(outcome, ServiceError):
        return pb.ExtractFeaturesResult(error=to_status(outcome))
    return pb.ExtractFeaturesResult(
        info=write_picture_info(outcome.info),
        features=outcome.features,
        keypoint_count=outcome.keypoint_count,
        words=_write_words(outcome.bag),
        shape_words=_write_words(outcome.shape_bag),
        box=write_box(outcome.box),
        thumbnail=outcome.thumbnail,
        vectors=_write_vectors(outcome.regional, regional_space),
    )


def _write_vectors(regional: Regional | None, space: str) -> list[model_pb2.Vector]:
    if regional is None:
        return []
    return [
        model_pb2.Vector(space=space, values=vector.astype("<f4").tobytes())
        for vector in regional.vectors
    ]


def _write_words(bag: Bag) -> model_pb2.SparseVector:
    return write_sparse_vector(
        SparseVector(vocabulary.SPACE, bag.words.tolist(), bag.weights.tolist())
    )


def _write_instance(appearance: Appearance) -> pb.ElementInstance:
    return pb.ElementInstance(
        corners=write_quadrilateral(appearance.corners.tolist()),
        inlier_count=appearance.inlier_count,
    )
