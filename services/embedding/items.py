"""What is asked of the Embedding service, and what it gives: pictures, regions, subjects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.errors import field_error, missing_field
from imagesearch_services.common.types import Box, Category, PictureInfo, Subject
from imagesearch_services.embedding.thumbnails import MAX_SIDE_PX, MIN_SIDE_PX

MAX_ITEMS = 100
MAX_REGIONS = 100
MAX_PROPOSED_REGIONS = 64


@dataclass(frozen=True, slots=True)
class Item:
    """One picture and what to embed of it."""

    content: bytes
    """The file."""
    regions: Sequence[Box] = ()
    """Regions to embed; none: the whole picture."""
    max_proposed_regions: int = 0
    """Embed instead up to this many regions that look like a picture of their own, found inside
    the first of `regions` or the whole picture."""
    subject_detection: bool = False
    """Embed instead the subject of the picture, looked for inside the first of `regions` or the
    whole picture."""
    category: Category | None = None
    """Embed the first subject of this category, if there is one; None: the main subject."""


@dataclass(frozen=True, slots=True)
class EmbeddedRegion:
    """A region and its embeddings."""

    box: Box
    vectors: Sequence[npt.NDArray[np.float32]]
    """Unit length, one for each space asked, in that order."""
    background_similarities: Sequence[float]
    """How close each vector lies to pictures in general; 0 where the model has no such set."""
    source: str
    """Which rule proposed it; empty for regions asked."""
    subject: Subject | None = None
    """What it shows, where a model of one of the spaces tells."""


@dataclass(frozen=True, slots=True)
class EmbeddedPicture:
    """What came of one picture."""

    info: PictureInfo
    regions: Sequence[EmbeddedRegion]
    subjects: Sequence[Subject] = ()
    """Where they were looked for, the main one first; only the chosen one has attributes."""
    chosen_subject: int | None = None
    """Which of them was embedded."""
    thumbnail: bytes = b""
    """JPEG of the whole picture, where asked for."""


@dataclass(slots=True)
class Timings:
    """Time of each step, for all pictures of a call together, seconds.

    All but the last two are work added up; pictures are worked on at once, so that they may exceed
    the total. `infer_s` is from the first input sent to the last embedding received.
    """

    decode_s: float = 0.0
    find_subjects_s: float = 0.0
    propose_regions_s: float = 0.0
    preprocess_s: float = 0.0
    infer_s: float = 0.0
    total_s: float = 0.0

    def add(self, picture: Timings) -> None:
        """Add the work on one picture."""
        self.decode_s += picture.decode_s
        self.find_subjects_s += picture.find_subjects_s
        self.propose_regions_s += picture.propose_regions_s
        self.preprocess_s += picture.preprocess_s


def validate(items: Sequence[Item], spaces: Sequence[str]) -> None:
    if not items:
        raise missing_field("items")
    if len(items) > MAX_ITEMS:
        raise field_error("items", f"has {len(items)} items; at most {MAX_ITEMS} are taken")
    if not spaces:
        raise missing_field("spaces")
    if len(set(spaces)) != len(spaces):
        raise field_error("spaces", "names a space twice")
    for index, item in enumerate(items):
        name = f"items[{index}]"
        if len(item.regions) > MAX_REGIONS:
            raise field_error(
                f"{name}.regions",
                f"has {len(item.regions)} regions; at most {MAX_REGIONS} are taken",
            )
        if item.subject_detection and item.max_proposed_regions:
            raise field_error(f"{name}.subject_detection", "can't be beside max_proposed_regions")
        if not 0 <= item.max_proposed_regions <= MAX_PROPOSED_REGIONS:
            raise field_error(
                f"{name}.max_proposed_regions",
                f"is {item.max_proposed_regions}; 0 to {MAX_PROPOSED_REGIONS} are taken",
            )


def validate_thumbnail(max_side_px: int) -> None:
    if max_side_px and not MIN_SIDE_PX <= max_side_px <= MAX_SIDE_PX:
        raise field_error(
            "thumbnail_max_side_px",
            f"is {max_side_px}; 0 or {MIN_SIDE_PX} to {MAX_SIDE_PX} are taken",
        )
