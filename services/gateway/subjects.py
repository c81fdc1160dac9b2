"""When subjects are looked for, and what is said where none was found: adding and searching."""

from __future__ import annotations

from collections.abc import Sequence

from imagesearch_services.common.types import Box, Category
from imagesearch_services.gateway.model import EmbeddedPicture


def is_subject_detected(wanted: bool | None, region: Box | None) -> bool:
    """Say whether to look for the subject: unless told otherwise, where no region is given."""
    return region is None if wanted is None else wanted


def detection_warnings(picture: EmbeddedPicture, category: Category | None) -> Sequence[str]:
    """Say where detection did not come to what the caller expects."""
    if picture.chosen_subject is None:
        return ["no subject stands out: all of what was looked at is taken for it"]
    taken = picture.subjects[picture.chosen_subject].category
    if category is not None and taken is not category:
        name = taken.name if taken else "nothing known"
        return [f"no subject looks like {category.name}: the main one, {name}, is taken for it"]
    return []
