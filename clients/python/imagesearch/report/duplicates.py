"""The page of repeats: every group with its small pictures, the image to keep first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from imagesearch.client import DuplicateGroup
from imagesearch.gateway.v1.search_pb2 import DuplicateImage
from imagesearch.report.figures import Figure, thumbnail
from imagesearch.report.rendering import render
from imagesearch.report.searches import Words
from imagesearch.report.words import count_words

KEEP_WORDS = {"largest": "most pixels", "sharpest": "sharpest", "oldest": "oldest"}
"""Why an image is proposed, by policy."""


@dataclass(frozen=True, kw_only=True)
class MemberView:
    """An image of a group as the page shows it."""

    is_kept: bool
    score: float
    is_checked: bool
    words: Words
    figure: Figure


@dataclass(frozen=True, kw_only=True)
class GroupView:
    """A group as the page shows it."""

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
    """Make a page of what FindDuplicates found.

    Args:
        library_id: where.
        groups: as they came.
        thumbnails: small pictures, JPEG, by full name; one that is missing leaves a frame.
        checked_count: how many images were looked at.
        keep: the policy, as the command line says it.

    >>> page = duplicates_page("zoo", [], {}, checked_count=3)
    >>> "No repeats" in page
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
    repeats = sum(len(view.members) - 1 for view in views)
    headline = (
        f"{count_words(len(views), 'group')} in {count_words(checked_count, 'image')},"
        f" {count_words(repeats, 'repeat')} beside those to keep"
    )
    return render(
        "duplicates.html",
        library_id=library_id,
        headline=headline if views else f"No repeats in {count_words(checked_count, 'image')}",
        groups=views,
        why=KEEP_WORDS.get(keep, keep),
    )


def _member(
    member: DuplicateImage, thumbnails: Mapping[str, bytes], *, is_kept: bool
) -> MemberView:
    image = member.image
    return MemberView(
        is_kept=is_kept,
        score=member.score,
        is_checked=member.pixels_agree,
        words=Words.of(image),
        figure=thumbnail(
            thumbnails.get(image.name, b""),
            image.info.width,
            image.info.height,
            alt=f"Stored image {image.image_id}",
        ),
    )
