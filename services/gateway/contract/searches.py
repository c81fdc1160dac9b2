"""Conversion of search and detection messages. Reading validates and raises ServiceError."""

from __future__ import annotations

from typing import cast

from imagesearch.gateway.v1 import search_pb2
from imagesearch_services.common import type_messages
from imagesearch_services.common.errors import field_error, missing_field
from imagesearch_services.common.types import Category
from imagesearch_services.gateway import names
from imagesearch_services.gateway.contract import limits
from imagesearch_services.gateway.contract.fields import optional_bool, read_bounds
from imagesearch_services.gateway.contract.filter_parser import parse_filter
from imagesearch_services.gateway.contract.images import read_image_id, write_image
from imagesearch_services.gateway.filters import category_is, conjunction
from imagesearch_services.gateway.model import DetectionAnswer, DrawingOptions, Relation
from imagesearch_services.gateway.search.annotations import check_options
from imagesearch_services.gateway.search.answer import AppliedThreshold, Match, SearchAnswer
from imagesearch_services.gateway.search.request import PictureQuery, SearchRequest, StoredQuery
from imagesearch_services.gateway.search.thumbnails import MAX_ANSWER_BYTES
from imagesearch_services.gateway.tokens import fingerprint

DEFAULT_MATCHES = 10
"""Matches per page if the request does not set page_size."""

_RELATIONS = {
    search_pb2.RELATION_UNSPECIFIED: (),
    search_pb2.RELATION_SAME: (Relation.SAME,),
    search_pb2.RELATION_SIMILAR: (Relation.SIMILAR,),
    search_pb2.RELATION_BOTH: (Relation.SAME, Relation.SIMILAR),
}


def read_search(request: search_pb2.SearchImagesRequest) -> SearchRequest:
    library_id = names.parse_library_name(request.parent, field="parent")
    category = type_messages.read_category(request.category)
    min_score, max_rate = read_bounds(request)
    if request.relation not in _RELATIONS:
        raise field_error("relation", f"{request.relation} is not a value of Relation")
    return SearchRequest(
        library_id=library_id,
        query=_read_query(request, library_id),
        filter=conjunction(parse_filter(request.filter), category_is(category)),
        page_size=limits.check_page_size(request.page_size, default=DEFAULT_MATCHES),
        page_token=limits.check_page_token(request.page_token),
        relations=_RELATIONS[request.relation],
        category=category,
        min_score=min_score,
        max_false_positive_rate=max_rate,
        distinct_entities=request.distinct_entities,
        subject_detection=optional_bool(request, "subject_detection"),
        thumbnail_bytes=MAX_ANSWER_BYTES if request.include_thumbnails else 0,
        drawing=_read_drawing_options(request),
        field_fingerprints=_fingerprints(request),
    )


def write_search_answer(answer: SearchAnswer) -> search_pb2.SearchImagesResponse:
    return search_pb2.SearchImagesResponse(
        matches=[_write_match(match) for match in answer.matches],
        next_page_token=answer.next_page_token,
        total_found=answer.total_found,
        total_is_lower_bound=answer.total_is_lower_bound,
        searched_region=type_messages.write_box(answer.searched_region)
        if answer.searched_region
        else None,
        query_info=type_messages.write_picture_info(answer.query_info)
        if answer.query_info
        else None,
        models=[type_messages.write_model_version(model) for model in answer.models],
        thresholds=[_write_threshold(threshold) for threshold in answer.thresholds],
        timings=[type_messages.write_timing(timing) for timing in answer.timings],
        subjects=[type_messages.write_subject(subject) for subject in answer.subjects],
        chosen_subject=answer.chosen_subject,
        warnings=answer.warnings,
        annotated_image=answer.annotated_image,
    )


def read_detection(
    request: search_pb2.DetectSubjectsRequest,
) -> tuple[PictureQuery, Category | None, DrawingOptions | None]:
    """Return the picture, the category of subjects to return, and the options of the drawing."""
    region = None
    if request.HasField("region"):
        region = limits.check_region(type_messages.read_box(request.region))
    content = limits.check_picture(request.image.content)
    drawing = _read_drawing_options(request)
    return PictureQuery(content, region), type_messages.read_category(request.category), drawing


def write_detection(answer: DetectionAnswer) -> search_pb2.DetectSubjectsResponse:
    return search_pb2.DetectSubjectsResponse(
        subjects=[type_messages.write_subject(subject) for subject in answer.subjects],
        info=type_messages.write_picture_info(answer.info),
        models=[type_messages.write_model_version(model) for model in answer.models],
        timings=[type_messages.write_timing(timing) for timing in answer.timings],
        annotated_image=answer.annotated_image,
    )


def _read_drawing_options(
    request: search_pb2.SearchImagesRequest | search_pb2.DetectSubjectsRequest,
) -> DrawingOptions | None:
    if not request.HasField("annotation"):
        return None
    return check_options(
        DrawingOptions(
            media_type=request.annotation.media_type,
            max_side_px=request.annotation.max_side_px,
            match_count=request.annotation.match_count,
        )
    )


def _read_query(
    request: search_pb2.SearchImagesRequest, library_id: str
) -> PictureQuery | StoredQuery | None:
    query = request.WhichOneof("query")
    region = None
    if request.HasField("region"):
        region = limits.check_region(type_messages.read_box(request.region))
    if query == "image_name":
        if region is not None:
            raise field_error(
                "region", "can't be combined with image_name: stored images have no pixels"
            )
        return StoredQuery(read_image_id(library_id, request.image_name, field="image_name"))
    if query == "image":
        return PictureQuery(limits.check_picture(request.image.content), region)
    if not request.page_token:
        raise missing_field("image.content")
    return None


def _fingerprints(request: search_pb2.SearchImagesRequest) -> dict[str, str]:
    """Return fingerprints of the set fields that must not change between pages."""
    fields = (
        "region",
        "filter",
        "category",
        "min_score",
        "max_false_positive_rate",
        "distinct_entities",
        "subject_detection",
    )
    set_fields = {descriptor.name: value for descriptor, value in request.ListFields()}
    return {
        name: fingerprint(
            set_fields[name].SerializeToString(deterministic=True)
            if name == "region"
            else set_fields[name]
        )
        for name in fields
        if name in set_fields
    }


def _write_match(match: Match) -> search_pb2.Match:
    return search_pb2.Match(
        image=write_image(match.image),
        score=match.score,
        relation=_write_relation(match.relation),
        box=type_messages.write_box(match.image.region) if match.image.region else None,
        query_box=type_messages.write_box(match.query_box) if match.query_box else None,
        similarity=match.similarity,
        false_positive_rate=match.false_positive_rate,
        query_corners=type_messages.write_quadrilateral(match.instances[0])
        if match.instances
        else None,
        instances=[type_messages.write_quadrilateral(outline) for outline in match.instances],
        thumbnail=match.thumbnail,
    )


def _write_threshold(threshold: AppliedThreshold) -> search_pb2.AppliedThreshold:
    return search_pb2.AppliedThreshold(
        relation=_write_relation(threshold.relation),
        min_score=threshold.min_score,
        false_positive_rate=threshold.false_positive_rate,
        extrapolated=threshold.extrapolated,
    )


def _write_relation(relation: Relation) -> search_pb2.Relation.ValueType:
    return cast("search_pb2.Relation.ValueType", int(relation))
