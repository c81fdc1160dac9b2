"""Items to embed, their validation, and the embedded pictures and regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.errors import Reason, field_error, missing_field
from imagesearch_services.common.types import Box, Category, PictureInfo, Subject
from imagesearch_services.embedding.pictures.opened_file import OpenedFile
from imagesearch_services.embedding.pictures.thumbnails import MAX_SIDE_PX, MIN_SIDE_PX

MAX_ITEMS = 100
"""Maximum pictures per call."""
MAX_REGIONS = 100
"""Maximum requested regions per picture."""
MAX_PROPOSED_REGIONS = 64
"""Maximum proposed regions per picture."""

PICTURE_ERRORS = {
    Reason.FIELD_REQUIRED,
    Reason.IMAGE_UNREADABLE,
    Reason.IMAGE_TRUNCATED,
    Reason.IMAGE_TOO_LARGE,
    Reason.IMAGE_TOO_SMALL,
    Reason.IMAGE_TOO_COSTLY,
    Reason.REGION_INVALID,
}
"""Reasons of the errors that concern one picture of a call; the other pictures are processed."""


@dataclass(frozen=True, slots=True)
class Item:
    """A picture, and the parts of it to embed."""

    content: bytes
    """The picture file."""
    regions: Sequence[Box] = ()
    """Regions to embed; empty: the whole picture."""
    max_proposed_regions: int = 0
    """Maximum regions to propose and embed, inside the first of `regions` or in the whole picture:
    regions that look like an inserted picture. 0: no regions are proposed."""
    subject_detection: bool = False
    """Whether to embed the subject that is found inside the first of `regions` or in the whole
    picture."""
    category: Category | None = None
    """Category of the subject to embed, if such a subject is found; None: the main subject."""
    file: OpenedFile | None = None
    """The file with its header already read; None: the header is read from `content`."""


@dataclass(frozen=True, slots=True)
class EmbeddedRegion:
    """A region and its embeddings."""

    box: Box
    vectors: Sequence[npt.NDArray[np.float32]]
    """Embeddings of unit length, one for each requested space, in the order of the spaces."""
    background_similarities: Sequence[float]
    """Background similarity of each vector; 0 if its model has no background set."""
    source: str
    """Name of the rule that proposed the region; empty for a requested region."""
    subject: Subject | None = None
    """The subject that the region shows; None if no model of the spaces labels regions."""


@dataclass(frozen=True, slots=True)
class EmbeddedPicture:
    """A picture's embedded regions and detected subjects."""

    info: PictureInfo
    regions: Sequence[EmbeddedRegion]
    subjects: Sequence[Subject] = ()
    """Detected subjects, the main subject first; only the chosen subject has attributes."""
    chosen_subject: int | None = None
    """Index of the subject that was embedded; None if no subject was requested or found."""
    thumbnail: bytes = b""
    """JPEG of the whole picture; empty if not requested."""


def validate(items: Sequence[Item], spaces: Sequence[str]) -> None:
    """Check the items and spaces of a call.

    Raises:
        ServiceError: FIELD_REQUIRED or FIELD_INVALID.
    """
    if not items:
        raise missing_field("items")
    if len(items) > MAX_ITEMS:
        raise field_error("items", f"has {len(items)} items; the maximum is {MAX_ITEMS}")
    if not spaces:
        raise missing_field("spaces")
    if len(set(spaces)) != len(spaces):
        raise field_error("spaces", "lists a space twice; each space must be listed once")
    for index, item in enumerate(items):
        _validate_item(item, f"items[{index}]")


def _validate_item(item: Item, name: str) -> None:
    if len(item.regions) > MAX_REGIONS:
        raise field_error(
            f"{name}.regions",
            f"has {len(item.regions)} regions; the maximum is {MAX_REGIONS}",
        )
    if item.subject_detection and item.max_proposed_regions:
        raise field_error(
            f"{name}.subject_detection", "can't be combined with max_proposed_regions"
        )
    if not 0 <= item.max_proposed_regions <= MAX_PROPOSED_REGIONS:
        raise field_error(
            f"{name}.max_proposed_regions",
            f"is {item.max_proposed_regions}; must be 0 to {MAX_PROPOSED_REGIONS}",
        )


def validate_thumbnail(max_side_px: int) -> None:
    """Check the requested maximum side of the thumbnails; 0: no thumbnails.

    Raises:
        ServiceError: FIELD_INVALID.
    """
    if max_side_px and not MIN_SIDE_PX <= max_side_px <= MAX_SIDE_PX:
        raise field_error(
            "thumbnail_max_side_px",
            f"is {max_side_px}; must be 0, or {MIN_SIDE_PX} to {MAX_SIDE_PX:,}",
        )
