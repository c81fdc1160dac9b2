"""Labels the regions and subjects of processed pictures from the outputs of a product model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from imagesearch_services.common.types import Category, Subject
from imagesearch_services.embedding.embed.items import EmbeddedPicture
from imagesearch_services.embedding.embed.pipeline import Processed
from imagesearch_services.embedding.inference.spaces import Space
from imagesearch_services.embedding.subjects.labels import Classification, Labels


def label_regions(space: Space, labels: Labels, processed: Processed) -> list[Classification]:
    """Classify each embedded region of a picture.

    Args:
        space: vector space whose model labels regions.
        labels: names of the values in the model's outputs.
        processed: processed picture.
    """
    outputs = space.own.model.outputs_in(processed.rows[space.own.key])
    prepared = processed.prepared
    found = prepared.found
    if prepared.chosen is not None and len(prepared.boxes) == 1:
        found = [found[prepared.chosen]]
    garments = [subject.garment_category for subject in found] or [None] * len(prepared.boxes)
    return [
        labels.classify(
            outputs["attributes"][row],
            outputs["categories"][row],
            garment_category=category,
            is_alone=len(prepared.found) <= 1,
        )
        for row, category in enumerate(garments)
    ]


def subject_at(processed: Processed, row: int, label: Classification | None) -> Subject:
    """Return a detected subject; `label` is None if its crop was not embedded."""
    found = processed.prepared.found[row]
    colors = processed.described.subject_colors[row]
    if label is None:
        return Subject(found.box, found.garment_category or Category.OTHER, found.score, colors)
    score = found.score if found.garment_category else found.score * label.score
    return Subject(found.box, label.category, score, colors, label.attributes)


def with_subjects(
    picture: EmbeddedPicture, processed: Processed, labels: Sequence[Classification]
) -> EmbeddedPicture:
    """Return the picture with the subject of each region and with all detected subjects.

    Args:
        picture: embedded picture without subjects.
        processed: the same picture, as it was processed.
        labels: classification of each region.
    """
    prepared, described = processed.prepared, processed.described
    if prepared.chosen is None:
        regions = [
            replace(
                region,
                subject=Subject(region.box, label.category, label.score, colors, label.attributes),
            )
            for region, label, colors in zip(
                picture.regions, labels, described.region_colors, strict=True
            )
        ]
        return replace(picture, regions=regions)
    subjects = [
        subject_at(processed, row, labels[0] if row == prepared.chosen else None)
        for row in range(len(prepared.found))
    ]
    (region,) = picture.regions
    return replace(
        picture,
        regions=[replace(region, subject=subjects[prepared.chosen])],
        subjects=subjects,
        chosen_subject=prepared.chosen,
    )
