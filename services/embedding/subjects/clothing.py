"""Segments garments and accessories in the probability maps of the clothing parser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.common.types import Category

Stats = npt.NDArray[np.integer[Any] | np.floating[Any]]
"""Statistics of connected components (`cv2.CC_STAT_*`), as OpenCV's stubs type them."""

CATEGORIES = (
    Category.TOPS,
    Category.DRESS,
    Category.BOTTOMS,
    Category.SHOES,
    Category.BAG,
    Category.ACCESSORIES,
)
"""Categories of garments and accessories that the parser segments."""
CATEGORY_CLASSES = ((2, 3), (4,), (5,), (6,), (7,), (8,))
"""Classes of the parser that make up each of `CATEGORIES`. Class 0 is background, class 1 person
(skin and hair)."""
SUBJECT_MAP = 9
"""Index of the parser's saliency map, which shows the subject whether it is clothing or not."""

LONG_SIDE_CELLS = 256
"""Long side to which maps are enlarged before segmentation, cells."""
LINK_DISTANCE = (0.10, 0.10, 0.10, 0.10, 0.03, 0.03)
"""Maximum distance of the components of one garment, as a share of the picture's long side, by
category. It links the two halves of an open jacket, and a pair of shoes."""
MIN_COMPONENT_SHARE = 0.0004
"""Minimum area of a component, as a share of the picture; smaller components are noise."""
MIN_GARMENT_SHARE = (0.006, 0.006, 0.006, 0.0015, 0.002, 0.002)
"""Minimum area of a garment, as a share of the picture, by category; smaller garments have too few
pixels to be searched for."""
MIN_SHARE_OF_LARGEST = 0.04
"""Minimum area of a component, as a share of the garment's largest component; smaller components do
not extend its box."""
MIN_SCORES = (0.60, 0.84, 0.80, 0.70, 0.75, 0.70)
"""Minimum score of a garment if the parser finds no person, by category. The score of shoes was
chosen on photos without shoes, in which cups and wheels reach 0.68."""
MIN_SCORES_WITH_PERSON = (0.60, 0.80, 0.70, 0.45, 0.66, 0.70)
"""Minimum score of a garment if the parser finds a person, by category. The scores were chosen for
a precision of .86 on street photos (the validation set: neither training nor test photos)."""

TOPS, DRESS, BOTTOMS, ACCESSORIES = 2, 4, 5, 8
"""Classes of the parser."""
ACCESSORIES_WEIGHT = 2.0
"""Factor of the probability of accessories, which are small and outvoted by the cells around them.
It was chosen on the same photos as `MIN_SCORES_WITH_PERSON`."""
OUTFITS = (((TOPS, BOTTOMS), 0.0), ((DRESS,), 0.0), ((TOPS, DRESS), -0.2))
"""Classes of each possible outfit, without outerwear, and its log prior: a top with trousers or a
skirt, a dress, a top over a dress."""
DRESS_WEIGHT = 0.6
"""Weight of the log odds of a dress, relative to the log probabilities of the maps, which are
overconfident."""
MIN_PROBABILITY = 1e-3
"""Lower bound of a cell's probability, so that a single cell cannot outvote the other cells."""


@dataclass(frozen=True)
class Garment:
    """A garment or accessory in the maps of the parser."""

    category: Category
    score: float
    """Mean probability of the category over the garment's cells, 0 to 1."""
    box: tuple[float, float, float, float]
    """x_min, y_min, x_max, y_max as shares of the map's sides."""
    area: float
    """Area of the garment, as a share of the map."""
    mask: npt.NDArray[np.bool_]
    """Cells of the garment, [height, width]."""

    @property
    def prominence(self) -> float:
        """Area times score: the main subject has the highest prominence."""
        return self.area * self.score


def find_garments(
    probabilities: npt.NDArray[np.float32],
    min_scores: tuple[float, ...] = (0.0,) * 6,
    *,
    dress_log_odds: float | None = None,
) -> list[Garment]:
    """Find garments, with one consistent outfit for each body.

    Args:
        probabilities: maps of the parser's nine classes, float32 [9, height, width], cropped to the
            picture (without the letterbox) and with the picture's aspect ratio.
        min_scores: minimum score, by category.
        dress_log_odds: log odds that the person wears a dress, from the parser's other output; None
            if the parser finds no person.

    Returns:
        The garments, the main one first.
    """
    if dress_log_odds is None:
        return segment_garments(_with_consistent_outfits(probabilities, 0.0), min_scores)
    consistent = _with_consistent_outfits(probabilities, dress_log_odds)
    consistent[ACCESSORIES] *= ACCESSORIES_WEIGHT
    return segment_garments(consistent / consistent.sum(axis=0), min_scores)


def segment_garments(
    probabilities: npt.NDArray[np.float32], min_scores: tuple[float, ...] = (0.0,) * 6
) -> list[Garment]:
    """Segment maps without changing them: ground-truth labels, or maps with consistent outfits.

    The arguments and the result are those of `find_garments`.
    """
    by_category = np.stack(
        [probabilities[0] + probabilities[1]]
        + [sum(probabilities[index] for index in classes) for classes in CATEGORY_CLASSES]
    )
    scale = LONG_SIDE_CELLS / max(by_category.shape[1:])
    height, width = (max(1, round(side * scale)) for side in by_category.shape[1:])
    enlarged = np.stack(
        [
            cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR)
            for plane in by_category
        ]
    )
    labels = enlarged.argmax(axis=0)
    garments = [
        garment
        for index in range(len(CATEGORIES))
        for garment in _garments(labels == index + 1, enlarged[index + 1], index)
        if garment.score >= min_scores[index]
    ]
    return sorted(garments, key=lambda garment: -garment.prominence)


def _with_consistent_outfits(
    probabilities: npt.NDArray[np.float32], dress_log_odds: float
) -> npt.NDArray[np.float32]:
    """Choose the likeliest outfit for each body as a whole, instead of for each cell.

    The probabilities of classes outside the outfit are redistributed to the classes of the outfit.
    """
    consistent = probabilities.copy()
    outfit_classes = [TOPS, DRESS, BOTTOMS]
    total = probabilities[outfit_classes].sum(axis=0)
    others = np.stack([probabilities[:2].sum(axis=0), probabilities[3], *probabilities[6:]])
    count, components = cv2.connectedComponents((total > others.max(axis=0)).astype(np.uint8))
    logs = np.log(np.maximum(probabilities, MIN_PROBABILITY))
    for component in range(1, count):
        cells = components == component
        outfit = _likeliest_outfit(logs[:, cells], dress_log_odds)
        kept_total = probabilities[list(outfit)][:, cells].sum(axis=0)
        factor = total[cells] / np.maximum(kept_total, 1e-6)
        for index in outfit_classes:
            consistent[index][cells] = (
                probabilities[index][cells] * factor if index in outfit else 0.0
            )
    return consistent


def _likeliest_outfit(
    log_probabilities: npt.NDArray[np.float32], dress_log_odds: float
) -> tuple[int, ...]:
    """Return the classes of the outfit that explains a body best.

    Args:
        log_probabilities: log probabilities of the body's cells, [classes, cells].
        dress_log_odds: log odds of a dress, from the parser's other output.
    """

    def score(outfit: tuple[tuple[int, ...], float]) -> float:
        classes, log_prior = outfit
        return float(
            log_probabilities[list(classes)].max(axis=0).mean()
            + log_prior
            + (DRESS_WEIGHT * dress_log_odds if DRESS in classes else 0.0)
        )

    return max(OUTFITS, key=score)[0]


def _garments(
    mask: npt.NDArray[np.bool_], probability: npt.NDArray[np.float32], category: int
) -> list[Garment]:
    """Group the connected components of a category's mask into garments.

    Args:
        mask: mask of the category, [height, width].
        probability: probability of the category, [height, width].
        category: index into `CATEGORIES`.
    """
    height, width = mask.shape
    count, components, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=8
    )
    large = [
        component
        for component in range(1, count)
        if stats[component, cv2.CC_STAT_AREA] >= MIN_COMPONENT_SHARE * mask.size
    ]
    garments = []
    for group in _linked(large, stats, LINK_DISTANCE[category] * max(height, width)):
        areas = {component: int(stats[component, cv2.CC_STAT_AREA]) for component in group}
        area = sum(areas.values())
        if area < MIN_GARMENT_SHARE[category] * mask.size:
            continue
        min_area = MIN_SHARE_OF_LARGEST * max(areas.values())
        main = [component for component in group if areas[component] >= min_area]
        garment_mask = np.isin(components, main)
        x_min, y_min = stats[main, cv2.CC_STAT_LEFT].min(), stats[main, cv2.CC_STAT_TOP].min()
        x_max = (stats[main, cv2.CC_STAT_LEFT] + stats[main, cv2.CC_STAT_WIDTH]).max()
        y_max = (stats[main, cv2.CC_STAT_TOP] + stats[main, cv2.CC_STAT_HEIGHT]).max()
        garments.append(
            Garment(
                category=CATEGORIES[category],
                score=float(probability[garment_mask].mean()),
                box=(x_min / width, y_min / height, x_max / width, y_max / height),
                area=area / mask.size,
                mask=garment_mask,
            )
        )
    return garments


def _linked(components: list[int], stats: Stats, max_distance: float) -> list[list[int]]:
    """Group components whose boxes are at most `max_distance` apart, directly or transitively."""
    groups: list[list[int]] = []
    for component in components:
        near = [
            group
            for group in groups
            if any(_gap(stats[component], stats[other]) <= max_distance for other in group)
        ]
        groups = [group for group in groups if group not in near]
        groups.append([component, *(other for group in near for other in group)])
    return groups


def _gap(a: Stats, b: Stats) -> float:
    """Return the Chebyshev distance of two components' boxes, cells; 0 if they overlap."""
    horizontal = max(a[0], b[0]) - min(a[0] + a[2], b[0] + b[2])
    vertical = max(a[1], b[1]) - min(a[1] + a[3], b[1] + b[3])
    return float(max(0, horizontal, vertical))


def iou(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Return the intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    intersection = width * height
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return intersection / (areas - intersection)
