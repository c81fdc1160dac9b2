"""Conversion of FindDuplicates and RejectPairs messages. Reading validates requests.

Invalid requests raise ServiceError.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from imagesearch.gateway.v1 import search_pb2
from imagesearch_services.common.errors import field_error
from imagesearch_services.gateway import names
from imagesearch_services.gateway.contract import limits
from imagesearch_services.gateway.contract.fields import read_bounds
from imagesearch_services.gateway.contract.filter_parser import parse_filter
from imagesearch_services.gateway.contract.images import read_image_id, write_image
from imagesearch_services.gateway.duplicates.model import (
    DuplicateImage,
    DuplicatesRequest,
    DuplicatesUpdate,
    KeepPolicy,
)
from imagesearch_services.gateway.tokens import fingerprint

MAX_PAIRS = 1000
"""Maximum pairs per RejectPairs call."""
MAX_GROUP_BYTES = 3 * 1024 * 1024
"""Maximum bytes of the images in a message: many clients accept messages of at most 4 MiB."""

_POLICIES = {
    search_pb2.KEEP_POLICY_UNSPECIFIED: KeepPolicy.LARGEST,
    search_pb2.KEEP_POLICY_LARGEST: KeepPolicy.LARGEST,
    search_pb2.KEEP_POLICY_SHARPEST: KeepPolicy.SHARPEST,
    search_pb2.KEEP_POLICY_OLDEST: KeepPolicy.OLDEST,
}


def read_duplicates_request(request: search_pb2.FindDuplicatesRequest) -> DuplicatesRequest:
    library_id = names.parse_library_name(request.parent, field="parent")
    min_score, max_rate = read_bounds(request)
    if request.keep not in _POLICIES:
        raise field_error("keep", f"{request.keep} is not a value of KeepPolicy")
    keep = _POLICIES[request.keep]
    return DuplicatesRequest(
        library_id=library_id,
        filter=parse_filter(request.filter),
        min_score=min_score,
        max_false_positive_rate=max_rate,
        keep=keep,
        page_token=limits.check_page_token(request.page_token),
        fingerprints={
            "filter": fingerprint(request.filter),
            "min_score": fingerprint(min_score),
            "max_false_positive_rate": fingerprint(max_rate),
            "keep": fingerprint(int(keep)),
        },
    )


def write_duplicates(
    update: DuplicatesUpdate,
) -> Iterator[search_pb2.FindDuplicatesResponse]:
    """Write an update as messages: more than one if the group is too large for one message.

    Only the last message of a group has the page token of the next update. The earlier messages
    have a token that repeats the group, so that a caller whose stream breaks within a group
    receives the whole group again.
    """
    parts = list(_split_group([_write_member(member) for member in update.group])) or [[]]
    for number, images in enumerate(parts, 1):
        is_last = number == len(parts)
        yield search_pb2.FindDuplicatesResponse(
            group=search_pb2.DuplicateGroup(images=images) if images else None,
            checked_count=update.checked_count,
            total_count=update.total_count,
            next_page_token=update.next_page_token if is_last else update.page_token,
        )


def read_rejected_pairs(
    request: search_pb2.RejectPairsRequest,
) -> tuple[str, list[tuple[str, str]], str]:
    """Return the library id, the pairs of image ids and the request id."""
    library_id = names.parse_library_name(request.parent, field="parent")
    limits.check_count(len(request.pairs), MAX_PAIRS, field="pairs")
    pairs = []
    for row, pair in enumerate(request.pairs):
        a = read_image_id(library_id, pair.name_a, field=f"pairs[{row}].name_a")
        b = read_image_id(library_id, pair.name_b, field=f"pairs[{row}].name_b")
        if a == b:
            raise field_error(f"pairs[{row}].name_b", "must not be the same image as name_a")
        pairs.append((a, b))
    return library_id, pairs, limits.check_request_id(request.request_id)


def _write_member(member: DuplicateImage) -> search_pb2.DuplicateImage:
    return search_pb2.DuplicateImage(
        image=write_image(member.image),
        score=member.score,
        pixels_agree=member.pixels_agree,
    )


def _split_group(
    members: Sequence[search_pb2.DuplicateImage],
) -> Iterator[list[search_pb2.DuplicateImage]]:
    """Split a group into parts that fit in a message; each starts with the image to keep."""
    if not members:
        return
    keep, *others = members
    part, size_bytes = [keep], keep.ByteSize()
    for member in others:
        if len(part) > 1 and size_bytes + member.ByteSize() > MAX_GROUP_BYTES:
            yield part
            part, size_bytes = [keep], keep.ByteSize()
        part.append(member)
        size_bytes += member.ByteSize()
    yield part
