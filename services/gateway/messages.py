"""The public contract ↔ the model: imagesearch.gateway.v1. Requests are checked on their way in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from imagesearch.gateway.v1 import image_pb2, library_pb2, search_pb2
from imagesearch.type.v1 import library_type_pb2
from imagesearch_services.common.errors import (
    ServiceError,
    field_error,
    missing_field,
)
from imagesearch_services.common.status import to_status
from imagesearch_services.gateway import limits, names
from imagesearch_services.gateway import type_messages as types
from imagesearch_services.gateway.comparison import ComparisonAnswer
from imagesearch_services.gateway.drawing import check_options
from imagesearch_services.gateway.filter_parser import parse_filter
from imagesearch_services.gateway.filters import Filter, category_is, conjunction, entity_is
from imagesearch_services.gateway.libraries import SETTABLE as LIBRARY_SETTABLE
from imagesearch_services.gateway.model import (
    AppliedThreshold,
    Category,
    DetectionAnswer,
    DrawingOptions,
    ImageFields,
    Library,
    LibraryFields,
    LibraryType,
    Match,
    NewImage,
    PictureQuery,
    Relation,
    SearchAnswer,
    StoredImage,
    StoredQuery,
)
from imagesearch_services.gateway.page_tokens import fingerprint
from imagesearch_services.gateway.search_request import SearchRequest
from imagesearch_services.gateway.thumbnails import ANSWER_BYTES

if TYPE_CHECKING:
    from imagesearch_services.gateway.ports import Changes

DEFAULT_PAGE_SIZE = 50
DEFAULT_MATCHES = 10

IMAGE_SETTABLE = ("entity_id", "category", "tags", "custom_content")

_RELATIONS = {
    search_pb2.RELATION_UNSPECIFIED: (),
    search_pb2.RELATION_SAME: (Relation.SAME,),
    search_pb2.RELATION_SIMILAR: (Relation.SIMILAR,),
    search_pb2.RELATION_BOTH: (Relation.SAME, Relation.SIMILAR),
}


# Libraries


def library_type(number: int) -> LibraryType:
    if not number:
        raise missing_field("library.type")
    try:
        return LibraryType(number)
    except ValueError:
        raise field_error("library.type", f"{number} is no library type") from None


def library_fields(message: library_pb2.Library) -> LibraryFields:
    return limits.check_library_fields(
        LibraryFields(
            display_name=message.display_name,
            description=message.description,
            capacity=message.capacity,
            thumbnails_disabled=message.thumbnails_disabled,
        )
    )


def library_changes(request: library_pb2.UpdateLibraryRequest) -> Changes:
    """Read what an update sets: the fields of its mask, or without one those that are set."""
    fields = library_fields(request.library)
    paths = list(request.update_mask.paths) or [
        path for path in LIBRARY_SETTABLE if getattr(fields, path)
    ]
    for path in paths:
        if path not in LIBRARY_SETTABLE:
            raise _unknown_path(path, LIBRARY_SETTABLE, library_pb2.Library.DESCRIPTOR)
    return {path: getattr(fields, path) for path in paths}


def library_message(library: Library) -> library_pb2.Library:
    return library_pb2.Library(
        name=names.library_name(library.library_id),
        type=cast("library_type_pb2.LibraryType.ValueType", int(library.type)),
        display_name=library.fields.display_name,
        description=library.fields.description,
        capacity=library.fields.capacity,
        thumbnails_disabled=library.fields.thumbnails_disabled,
        image_count=library.image_count,
        models=[types.model_version_message(model) for model in library.models],
        create_time=types.time_message(library.create_time),
        update_time=types.time_message(library.update_time),
        unindexed_vector_count=library.unindexed_vector_count,
    )


# Images


def new_image(request: image_pb2.AddImageRequest) -> NewImage:
    request_id = limits.check_request_id(request.request_id)
    if request.image_id:
        image_id = names.check_image_id(request.image_id, field="image_id")
    else:
        image_id = names.make_image_id(request_id)
    region = None
    if request.HasField("region"):
        region = limits.check_region(types.box(request.region))
    return NewImage(
        image_id=image_id,
        content=limits.check_picture(request.image.content),
        fields=limits.check_image_fields(
            ImageFields(
                entity_id=request.entity_id,
                category=types.category(request.category),
                tags=types.tags(request.tags),
                custom_content=request.custom_content,
            )
        ),
        region=region,
        subject_detection=_optional_bool(request, "subject_detection"),
        allow_overwrite=request.allow_overwrite,
        request_id=request_id,
    )


def new_images(request: image_pb2.BatchAddImagesRequest) -> list[NewImage | ServiceError]:
    """Read a batch; what can't be tried stands as its error."""
    limits.check_count(len(request.requests), limits.MAX_BATCH_ITEMS, field="requests")
    return [_or_error(new_image, _inside(request.parent, item)) for item in request.requests]


def image_changes(request: image_pb2.UpdateImageRequest) -> Changes:
    """Read what an update sets: the fields of its mask, or without one those that are set.

    None under `tags.NAME` stands for a tag to remove.
    """
    message = request.image
    fields = limits.check_image_fields(
        ImageFields(
            entity_id=message.entity_id,
            category=types.category(message.category, field="image.category"),
            tags=types.tags(message.tags, field="image.tags"),
            custom_content=message.custom_content,
        ),
        under="image.",
    )
    paths = list(request.update_mask.paths) or [
        path for path in IMAGE_SETTABLE if getattr(fields, path)
    ]
    changes: dict[str, object] = {}
    for path in paths:
        family, dot, name = path.partition(".")
        if dot and family == "tags":
            changes[path] = fields.tags.get(limits.check_tag_name(name, field="update_mask"))
        elif path in IMAGE_SETTABLE:
            changes[path] = getattr(fields, path)
        else:
            raise _unknown_path(path, (*IMAGE_SETTABLE, "tags.NAME"), image_pb2.Image.DESCRIPTOR)
    if "tags" in changes and any(path.startswith("tags.") for path in changes):
        raise field_error("update_mask", '"tags" and "tags.NAME" can\'t be set in one call')
    return changes


def images_to_delete(request: image_pb2.DeleteImagesRequest, library_id: str) -> list[str] | Filter:
    """Read which images to delete: their ids, or a filter that takes them."""
    given = [name for name in ("names", "entity_id", "filter") if getattr(request, name)]
    if not given:
        raise missing_field("names, entity_id or filter")
    if len(given) > 1:
        raise field_error(given[1], f"can't be given beside {given[0]}")
    if request.names:
        limits.check_count(len(request.names), limits.MAX_NAMES, field="names")
        return [
            image_id_under(library_id, name, field=f"names[{row}]")
            for row, name in enumerate(request.names)
        ]
    if request.entity_id:
        return entity_is(names.check_opaque_id(request.entity_id, field="entity_id"))
    images = parse_filter(request.filter)
    if images is None:
        # White space only. Deleting everything must be said, not slip through.
        raise missing_field("filter")
    return images


def image_id_under(library_id: str, name: str, *, field: str) -> str:
    """Return the image id of a name that must lie in the library."""
    parent_id, image_id = names.parse_image_name(name, field=field)
    if parent_id != library_id:
        raise field_error(field, f"must be in {names.library_name(library_id)}")
    return image_id


def image_message(image: StoredImage) -> image_pb2.Image:
    fields = image.fields
    return image_pb2.Image(
        name=names.image_name(image.library_id, image.image_id),
        image_id=image.image_id,
        entity_id=fields.entity_id,
        tags={name: types.tag_message(value) for name, value in fields.tags.items()},
        category=types.category_message(fields.category),
        custom_content=fields.custom_content,
        region=types.box_message(image.region) if image.region else None,
        subject=types.subject_message(image.subject) if image.subject else None,
        info=types.picture_info_message(image.info),
        create_time=types.time_message(image.create_time),
        update_time=types.time_message(image.update_time),
        warnings=image.warnings,
    )


def thumbnail_response(file: bytes) -> image_pb2.GetThumbnailResponse:
    return image_pb2.GetThumbnailResponse(content=file, media_type="image/jpeg")


def batch_add_response(
    results: Iterable[StoredImage | ServiceError],
) -> image_pb2.BatchAddImagesResponse:
    messages = [
        image_pb2.BatchAddImagesResult(error=to_status(result))
        if isinstance(result, ServiceError)
        else image_pb2.BatchAddImagesResult(image=image_message(result))
        for result in results
    ]
    return image_pb2.BatchAddImagesResponse(
        results=messages, added_count=sum(one.HasField("image") for one in messages)
    )


# Searches


def search_request(request: search_pb2.SearchImagesRequest) -> SearchRequest:
    library_id = names.parse_library_name(request.parent, field="parent")
    category = types.category(request.category)
    min_score = max_rate = None
    if request.HasField("min_score"):
        min_score = limits.check_min_score(request.min_score)
    if request.HasField("max_false_positive_rate"):
        max_rate = limits.check_max_false_positive_rate(request.max_false_positive_rate)
    if request.relation not in _RELATIONS:
        raise field_error("relation", f"{request.relation} is no relation")
    return SearchRequest(
        library_id=library_id,
        query=_query(request, library_id),
        filter=conjunction(parse_filter(request.filter), category_is(category)),
        page_size=limits.check_page_size(request.page_size, default=DEFAULT_MATCHES),
        page_token=limits.check_page_token(request.page_token),
        relations=_RELATIONS[request.relation],
        category=category,
        min_score=min_score,
        max_false_positive_rate=max_rate,
        distinct_entities=request.distinct_entities,
        subject_detection=_optional_bool(request, "subject_detection"),
        thumbnail_bytes=ANSWER_BYTES if request.include_thumbnails else 0,
        drawing=_drawing_options(request),
        said=_fingerprints(request),
    )


def search_requests(
    request: search_pb2.BatchSearchImagesRequest,
) -> list[SearchRequest | ServiceError]:
    """Read a batch; what can't be tried stands as its error."""
    names.parse_library_name(request.parent, field="parent")
    limits.check_count(len(request.requests), limits.MAX_BATCH_ITEMS, field="requests")
    searches = [
        _or_error(search_request, _inside(request.parent, item)) for item in request.requests
    ]
    return _sharing(searches)


def _sharing(searches: list[SearchRequest | ServiceError]) -> list[SearchRequest | ServiceError]:
    """Let the searches of a batch share the room that their pictures have in one answer."""
    asked = [search for search in searches if isinstance(search, SearchRequest)]
    showing = sum(search.thumbnail_bytes > 0 for search in asked)
    drawing = sum(search.drawing is not None for search in asked)
    # Small pictures and drawings fill an answer between them, if both are asked for.
    kinds = bool(showing) + bool(drawing)
    return [
        replace(
            search,
            thumbnail_bytes=search.thumbnail_bytes // (kinds * showing) if showing else 0,
            drawing=search.drawing
            and replace(search.drawing, max_bytes=search.drawing.max_bytes // (kinds * drawing)),
        )
        if isinstance(search, SearchRequest)
        else search
        for search in searches
    ]


def search_response(answer: SearchAnswer) -> search_pb2.SearchImagesResponse:
    return search_pb2.SearchImagesResponse(
        matches=[_match_message(match) for match in answer.matches],
        next_page_token=answer.next_page_token,
        total_found=answer.total_found,
        total_is_lower_bound=answer.total_is_lower_bound,
        searched_region=types.box_message(answer.searched_region)
        if answer.searched_region
        else None,
        query_info=types.picture_info_message(answer.query_info) if answer.query_info else None,
        models=[types.model_version_message(model) for model in answer.models],
        thresholds=[_threshold_message(threshold) for threshold in answer.thresholds],
        timings=[types.timing_message(timing) for timing in answer.timings],
        subjects=[types.subject_message(subject) for subject in answer.subjects],
        chosen_subject=answer.chosen_subject,
        warnings=answer.warnings,
        annotated_image=answer.annotated_image,
    )


def batch_search_response(
    results: Iterable[SearchAnswer | ServiceError],
) -> search_pb2.BatchSearchImagesResponse:
    return search_pb2.BatchSearchImagesResponse(
        results=[
            search_pb2.BatchSearchImagesResult(error=to_status(result))
            if isinstance(result, ServiceError)
            else search_pb2.BatchSearchImagesResult(response=search_response(result))
            for result in results
        ]
    )


def picture_to_describe(
    request: search_pb2.DetectSubjectsRequest,
) -> tuple[PictureQuery, Category | None, DrawingOptions | None]:
    """Read what to look for subjects in, of which category, and how to draw them."""
    region = None
    if request.HasField("region"):
        region = limits.check_region(types.box(request.region))
    content = limits.check_picture(request.image.content)
    drawing = _drawing_options(request)
    return PictureQuery(content, region), types.category(request.category), drawing


def detect_subjects_response(answer: DetectionAnswer) -> search_pb2.DetectSubjectsResponse:
    return search_pb2.DetectSubjectsResponse(
        subjects=[types.subject_message(subject) for subject in answer.subjects],
        info=types.picture_info_message(answer.info),
        models=[types.model_version_message(model) for model in answer.models],
        timings=[types.timing_message(timing) for timing in answer.timings],
        annotated_image=answer.annotated_image,
    )


def _drawing_options(
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


def pictures_to_compare(request: search_pb2.CompareImagesRequest) -> tuple[bytes, bytes]:
    return (
        limits.check_picture(request.image_a.content, field="image_a.content"),
        limits.check_picture(request.image_b.content, field="image_b.content"),
    )


def compare_response(answer: ComparisonAnswer) -> search_pb2.CompareImagesResponse:
    pair = answer.pair
    return search_pb2.CompareImagesResponse(
        verdict=cast("search_pb2.Verdict.ValueType", int(answer.verdict)),
        score=answer.score,
        false_positive_rate=answer.false_positive_rate,
        likely_edits=answer.likely_edits,
        measures=pair.measures,
        info_a=types.picture_info_message(pair.infos[0]),
        info_b=types.picture_info_message(pair.infos[1]),
        overlay=pair.overlay,
        timings=[types.timing_message(step) for step in answer.timings],
    )


def _query(
    request: search_pb2.SearchImagesRequest, library_id: str
) -> PictureQuery | StoredQuery | None:
    query = request.WhichOneof("query")
    region = None
    if request.HasField("region"):
        region = limits.check_region(types.box(request.region))
    if query == "image_name":
        if region is not None:
            raise field_error("region", "a stored image's pixels are not kept: no region of it")
        return StoredQuery(image_id_under(library_id, request.image_name, field="image_name"))
    if query == "image":
        return PictureQuery(limits.check_picture(request.image.content), region)
    if not request.page_token:
        raise missing_field("image.content")
    return None


def _fingerprints(request: search_pb2.SearchImagesRequest) -> dict[str, str]:
    """Tell apart what a caller set, so that a later page can't ask for something else."""
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


def _match_message(match: Match) -> search_pb2.Match:
    return search_pb2.Match(
        image=image_message(match.image),
        score=match.score,
        relation=_relation_message(match.relation),
        box=types.box_message(match.image.region) if match.image.region else None,
        query_box=types.box_message(match.query_box) if match.query_box else None,
        similarity=match.similarity,
        false_positive_rate=match.false_positive_rate,
        query_corners=types.quadrilateral_message(match.instances[0]) if match.instances else None,
        instances=[types.quadrilateral_message(one) for one in match.instances],
        thumbnail=match.thumbnail,
    )


def _threshold_message(threshold: AppliedThreshold) -> search_pb2.AppliedThreshold:
    return search_pb2.AppliedThreshold(
        relation=_relation_message(threshold.relation),
        min_score=threshold.min_score,
        false_positive_rate=threshold.false_positive_rate,
        extrapolated=threshold.extrapolated,
    )


def _relation_message(relation: Relation) -> search_pb2.Relation.ValueType:
    return cast("search_pb2.Relation.ValueType", int(relation))


def _inside(parent: str, item: Any) -> Any:
    """Give a batch's item its parent; it may say the same one, no other."""
    if not item.parent:
        item.parent = parent
    elif item.parent != parent:
        return field_error("parent", f"must be {parent}, or be left out inside a batch")
    return item


def _or_error(read: Callable[[Any], Any], item: Any) -> Any:
    if isinstance(item, ServiceError):
        return item
    try:
        return read(item)
    except ServiceError as error:
        return error


def _optional_bool(request: Any, name: str) -> bool | None:
    return bool(getattr(request, name)) if request.HasField(name) else None


def _unknown_path(path: str, settable: Iterable[str], descriptor: Any) -> ServiceError:
    known: Mapping[str, object] = descriptor.fields_by_name
    why = "can't be changed" if path.partition(".")[0] in known else "is no field"
    return field_error("update_mask", f'"{path}" {why}; there are {", ".join(settable)}')
