"""The border of the contract for elements: features, and where they were found."""

from __future__ import annotations

from imagesearch.embedding.v1 import embedding_service_pb2 as pb
from imagesearch.type.v1 import geometry_pb2, library_type_pb2, model_pb2
from imagesearch_services.common import roles
from imagesearch_services.common.errors import ServiceError
from imagesearch_services.common.status import to_status
from imagesearch_services.embedding import messages
from imagesearch_services.embedding.elements import vocabulary
from imagesearch_services.embedding.elements.features import Bag
from imagesearch_services.embedding.elements.finder import Extracted, Extraction, Verification
from imagesearch_services.embedding.elements.fusion import Appearance, Candidate
from imagesearch_services.embedding.elements.regional import Regional
from imagesearch_services.embedding.steps import Steps


def served_words() -> pb.ServedModel:
    """Tell of the vocabulary of visual words, which needs no Triton to serve."""
    return pb.ServedModel(
        model=model_pb2.ModelVersion(
            role=roles.WORDS, name=vocabulary.NAME, version=vocabulary.VERSION
        ),
        space=vocabulary.SPACE,
        library_types=[library_type_pb2.LIBRARY_TYPE_ELEMENT],
    )


def read_candidates(request: pb.VerifyFeaturesRequest) -> list[Candidate]:
    return [Candidate(stored.id, stored.features) for stored in request.candidates]


def extract_features_response(
    extraction: Extraction, regional_space: str
) -> pb.ExtractFeaturesResponse:
    return pb.ExtractFeaturesResponse(
        results=[_extracted(outcome, regional_space) for outcome in extraction.pictures],
        timings=_timings(extraction.steps),
    )


def verify_features_response(verification: Verification) -> pb.VerifyFeaturesResponse:
    return pb.VerifyFeaturesResponse(
        elements=[
            pb.VerifiedElement(
                id=found.id,
                evidence=found.evidence,
                instances=[_instance(one) for one in found.appearances],
            )
            for found in verification.elements
        ],
        timings=_timings(verification.steps),
    )


def _extracted(outcome: Extracted | ServiceError, regional_space: str) -> pb.ExtractFeaturesResult:
    if isinstance(outcome, ServiceError):
        return pb.ExtractFeaturesResult(error=to_status(outcome))
    box = outcome.box
    return pb.ExtractFeaturesResult(
        info=messages.picture_info(outcome.info),
        features=outcome.features,
        keypoint_count=outcome.keypoint_count,
        words=_sparse_vector(outcome.bag),
        shape_words=_sparse_vector(outcome.shape_bag),
        box=geometry_pb2.Box(x_min=box.x_min, y_min=box.y_min, x_max=box.x_max, y_max=box.y_max),
        thumbnail=outcome.thumbnail,
        vectors=_vectors(outcome.regional, regional_space),
    )


def _vectors(regional: Regional | None, space: str) -> list[model_pb2.Vector]:
    if regional is None:
        return []
    return [
        model_pb2.Vector(space=space, values=vector.astype("<f4").tobytes())
        for vector in regional.vectors
    ]


def _sparse_vector(bag: Bag) -> model_pb2.SparseVector:
    return model_pb2.SparseVector(
        space=vocabulary.SPACE, indices=bag.words.tolist(), values=bag.weights.tolist()
    )


def _instance(appearance: Appearance) -> pb.ElementInstance:
    return pb.ElementInstance(
        corners=geometry_pb2.Quadrilateral(
            corners=[geometry_pb2.Point(x=x, y=y) for x, y in appearance.corners.tolist()]
        ),
        inlier_count=appearance.inlier_count,
    )


def _timings(steps: Steps) -> list[model_pb2.StepTiming]:
    return [
        model_pb2.StepTiming(step=step, duration_ms=1e3 * seconds)
        for step, seconds in steps.seconds.items()
    ]
