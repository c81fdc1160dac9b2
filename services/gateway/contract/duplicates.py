"""FindDuplicates and RejectPairs ↔ the model: imagesearch.gateway.v1. Requests are checked here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from imagesearch.gateway.v1 import search_pb2
from imagesearch_services.common.errors import field_error
from imagesearch_services.gateway import names
from imagesearch_services.gateway.contract import limits
from imagesearch_services.gateway.contract.filter_parser import parse_filter
from imagesearch_services.gateway.contract.images import read_image_id, write_image
from imagesearch_services.gateway.duplicates.graph import KeepPolicy
from imagesearch_services.gateway.duplicates.scan import (
    DuplicateImage,
    DuplicatesNews,
    DuplicatesRequest,
)
from imagesearch_services.gateway.tokens import fingerprint

MAX_PAIRS = 1000

MESSAGE_BYTES = 3 * 1024 * 1024
"""Of the images in one message: many clients take no more than 4 MiB."""

_POLICIES = {
    search_pb2.KEEP_POLICY_UNSPECIFIED: KeepPolicy.LARGEST,
    search_pb2.KEEP_POLICY_LARGEST: KeepPolicy.LARGEST,
    search_pb2.KEEP_POLICY_SHARPEST: KeepPolicy.SHARPEST,
    search_pb2.KEEP_POLICY_OLDEST: KeepPolicy.OLDEST,
}


def read_duplicates_request(request: search_pb2.FindDuplicatesRequest) -> DuplicatesRequest:
    library_id = names.parse_library_name(request.parent, field="parent")
    min_score = max_rate = None
    if request.HasField("min_score"):
        min_score = limits.check_min_score(request.min_score)
    if request.HasField("max_false_positive_rate"):
        max_rate = limits.check_max_false_positive_rate(request.max_false_positive_rate)
    if request.keep not in _POLICIES:
        raise field_error("keep", f"{request.keep} is no policy")
    keep = _POLICIES[request.keep]
    return DuplicatesRequest(
        library_id=library_id,
        filter=parse_filter(request.filter),
        min_score=min_score,
        max_false_positive_rate=max_rate,
        keep=keep,
        page_token=limits.check_page_token(request.page_token),
        said={
            "filter": fingerprint(request.filter),
            "min_score": fingerprint(min_score),
            "max_false_positive_rate": fingerprint(max_rate),
            "keep": fingerprint(int(keep)),
        },
    )


def write_duplicates(
    news: DuplicatesNews,
) -> Iterator[search_pb2.FindDuplicatesResponse]:
    """Write a message; a group that is too large for one comes in several.

    All but the last of several lead back to the first, so that a caller who got only some of them
    is given all again.
    """
    parts = list(_parts([_write_member(one) for one in news.group])) or [[]]
    for number, images in enumerate(parts, 1):
        yield search_pb2.FindDuplicatesResponse(
            group=search_pb2.DuplicateGroup(images=images) if images else None,
            checked_count=news.checked_count,
            total_count=news.total_count,
            next_page_token=news.next_page_token if number == len(parts) else news.page_token,
        )


def read_rejected_pairs(
    request: search_pb2.RejectPairsRequest,
) -> tuple[str, list[tuple[str, str]], str]:
    """Read library id, pairs of image ids, and request id."""
    library_id = names.parse_library_name(request.parent, field="parent")
    limits.check_count(len(request.pairs), MAX_PAIRS, field="pairs")
    pairs = []
    for row, pair in enumerate(request.pairs):
        a = read_image_id(library_id, pair.name_a, field=f"pairs[{row}].name_a")
        b = read_image_id(library_id, pair.name_b, field=f"pairs[{row}].name_b")
        if a == b:
            raise field_error(f"pairs[{row}].name_b", "must be another image")
        pairs.append((a, b))
    return library_id, pairs, limits.check_request_id(request.request_id)


def _write_member(member: DuplicateImage) -> search_pb2.DuplicateImage:
    return search_pb2.DuplicateImage(
        image=write_image(member.image),
        score=member.score,
        pixels_agree=member.pixels_agree,
    )


def _parts(
    members: Sequence[search_pb2.DuplicateImage],
) -> Iterator[list[search_pb2.DuplicateImage]]:
    """Split a group so that each part fits in a message, led by the image to keep."""
    if not members:
        return
    keep, *others = members
    part, size_bytes = [keep], keep.ByteSize()
    for member in others:
        if len(part) > 1 and size_bytes + member.ByteSize() > MESSAGE_BYTES:
            yield part
            part, size_bytes = [keep], keep.ByteSize()
        part.append(member)
        size_bytes += member.ByteSize()
    yield part
