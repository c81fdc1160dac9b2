"""The page of duplicates: groups of thumbnails, each beginning with the image to keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from imagesearch.client import DuplicateGroup
from imagesearch.gateway.v1.search_pb2 import DuplicateImage
from imagesearch.report.figures import Figure, thumbnail
from imagesearch.report.rendering import render
from imagesearch.report.searches import ImageMetadata
from imagesearch.report.words import count_words

KEEP_WORDS = {"largest": "most pixels", "sharpest": "sharpest", "oldest": "oldest"}
"""Property of the image to keep, by policy."""


@dataclass(frozen=True, kw_only=True)
class MemberView:
    """Data of a group member for the template."""

    is_kept: bool
    score: float
    pixels_agree: bool
    metadata: ImageMetadata
    figure: Figure


@dataclass(frozen=True, kw_only=True)
class GroupView:
    """Data of a group for the template."""

    anchor: str
    number: int
    members: Sequence[MemberView]


def duplicates_page(
    library_id: str,
    groups: Sequence[DuplicateGroup],
    thumbnails: Mapping[str, bytes],
    *,
    checked_count: int,
    keep: str = "largest",
) -> str:
    """Return the page of the groups that FindDuplicates found.

    Args:
        library_id: the library.
        groups: groups in their order on the page.
        thumbnails: JPEG thumbnails by image name; an image without a thumbnail has an empty frame.
        checked_count: number of compared images.
        keep: keep policy, as in the option of the command line.

    >>> page = duplicates_page("zoo", [], {}, checked_count=3)
    >>> "No duplicates" in page
    True
    """
    views = [
        GroupView(
            anchor=f"group-{number}",
            number=number,
            members=[
                _member(member, thumbnails, is_kept=place == 0)
                for place, member in enumerate(group.images)
            ],
        )
        for number, group in enumerate(groups, 1)
    ]
    duplicate_count = sum(len(view.members) - 1 for view in views)
    headline = (
        f"{count_words(len(views), 'group')} in {count_words(checked_count, 'image')},"
        f" {count_words(duplicate_count, 'duplicate')}"
    )
    return render(
        "duplicates.html",
        library_id=library_id,
        headline=headline if views else f"No duplicates in {count_words(checked_count, 'image')}",
        groups=views,
        keep_reason=KEEP_WORDS.get(keep, keep),
    )


def _member(
    member: DuplicateImage, thumbnails: Mapping[str, bytes], *, is_kept: bool
) -> MemberView:
    image = member.image
    return MemberView(
        is_kept=is_kept,
        score=member.score,
        pixels_agree=member.pixels_agree,
        metadata=ImageMetadata.of(image),
        figure=thumbnail(
            thumbnails.get(image.name, b""),
            image.info.width,
            image.info.height,
            alt=f"Stored image {image.image_id}",
        ),
    )
