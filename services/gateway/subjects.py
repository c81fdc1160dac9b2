"""Subject detection of added pictures and queries: when it is enabled, and its warnings."""

from __future__ import annotations

from collections.abc import Sequence

from imagesearch_services.common.types import Box, Category
from imagesearch_services.gateway.model import EmbeddedPicture


def is_subject_detected(requested: bool | None, region: Box | None) -> bool:
    """Return whether to detect the subject: by default if the caller gave no region."""
    return region is None if requested is None else requested


def detection_warnings(picture: EmbeddedPicture, category: Category | None) -> Sequence[str]:
    """Return a warning if no subject, or no subject of the category, was detected."""
    if picture.chosen_subject is None:
        return ["no subject was detected: the whole picture or region was embedded"]
    chosen = picture.subjects[picture.chosen_subject].category
    if category is not None and chosen is not category:
        name = chosen.name if chosen else "of unknown category"
        missing = f"no subject of the category {category.name} was detected"
        return [f"{missing}: the main subject ({name}) was embedded instead"]
    return []
