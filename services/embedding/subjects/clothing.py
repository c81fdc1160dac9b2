"""From the parser's maps to subjects: boxes with a category and a score, the main one first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.common.types import Category

Stats = npt.NDArray[np.integer[Any] | np.floating[Any]]
"""Of connected components, as OpenCV's stubs type them."""

CATEGORIES = (
    Category.TOPS,
    Category.DRESS,
    Category.BOTTOMS,
    Category.SHOES,
    Category.BAG,
    Category.ACCESSORIES,
)
OF_CATEGORY = ((2, 3), (4,), (5,), (6,), (7,), (8,))
"""The parser's classes that make up each category; 0 is background, 1 the person."""
SUBJECT = 9
"""The parser's map of whatever is the subject of the picture, clothing or not."""

LONG_SIDE_CELLS = 256
"""Maps are enlarged to this before they are cut into parts."""
LINK_DISTANCE = (0.10, 0.10, 0.10, 0.10, 0.03, 0.03)
"""Parts of a category nearer than this share of the picture's long side are one subject: the two
halves of an open jacket, a pair of shoes."""
MIN_PART_SHARE = 0.0004
"""Of the picture's area; smaller parts are noise."""
MIN_SUBJECT_SHARE = (0.006, 0.006, 0.006, 0.0015, 0.002, 0.002)
"""Of the picture's area, for each category: less has too few pixels to search with."""
MIN_PART_OF_LARGEST = 0.04
"""Parts smaller than this share of the subject's largest do not widen its box."""
MIN_SCORES = (0.60, 0.84, 0.80, 0.70, 0.75, 0.70)
"""For each category, from which a subject is told where nobody is seen; for shoes chosen on photos
without any: cups and wheels reach 0.68."""
MIN_WORN_SCORES = (0.60, 0.80, 0.70, 0.45, 0.66, 0.70)
"""The same where somebody is, who wears something. Chosen on street photos that neither train the
parser nor measure it, for a precision of .86."""

TOPS, DRESS, BOTTOMS, ACCESSORIES = 2, 4, 5, 8
ACCESSORIES_WEIGHT = 2.0
"""By which the probability of accessories counts more: small as they are, the cells around them
outvote them. Chosen on the same photos as the scores."""
OUTFITS = (((TOPS, BOTTOMS), 0.0), ((DRESS,), 0.0), ((TOPS, DRESS), -0.2))
"""What a body wears in one piece of the picture, outerwear aside, and how likely beforehand (log):
a top with trousers or a skirt, a dress, a top over a dress."""
DRESS_WEIGHT = 0.6
"""Of what is known about a dress beside the maps, which are surer than they should be."""
MIN_PROBABILITY = 1e-3
"""Nothing is less likely: one sure pixel shall not outvote the others."""


@dataclass(frozen=True)
class Garment:
    """A garment or accessory in the maps of the parser."""

    category: Category
    score: float
    """Mean probability of the category over the subject's pixels, 0 to 1."""
    box: tuple[float, float, float, float]
    """x_min, y_min, x_max, y_max as shares of the map's sides."""
    area: float
    """Share of the map."""
    mask: npt.NDArray[np.bool_]

    @property
    def weight(self) -> float:
        """What the main subject has most of."""
        return self.area * self.score


def find_clothing(
    probabilities: npt.NDArray[np.float32],
    min_scores: tuple[float, ...] = (0.0,) * 6,
    *,
    dress: float | None = None,
) -> list[Garment]:
    """Cuts maps into garments.

    Args:
        probabilities: Of the parser's nine classes, [9, height, width], cut to the picture (without
            the letterbox's frame) and with the picture's aspect.
        min_scores: For each of CATEGORIES.
        dress: Where somebody is seen, how much likelier (log odds) it is that they wear a dress
            than that they wear none, from something else than these maps; None: nobody is, and
            the maps are taken as they are.

    Returns:
        Subjects, the main one first.
    """
    if dress is None:
        return cut_into_subjects(_one_outfit(probabilities, 0.0), min_scores)
    settled = _one_outfit(probabilities, dress)
    settled[ACCESSORIES] *= ACCESSORIES_WEIGHT
    return cut_into_subjects(settled / settled.sum(axis=0), min_scores)


def cut_into_subjects(
    probabilities: npt.NDArray[np.float32], min_scores: tuple[float, ...] = (0.0,) * 6
) -> list[Garment]:
    """Cuts maps as they are: those of labels, or after all doubts are settled."""
    merged = np.stack(
        [probabilities[0] + probabilities[1]]
        + [sum(probabilities[index] for index in indices) for indices in OF_CATEGORY]
    )
    scale = LONG_SIDE_CELLS / max(merged.shape[1:])
    size = (max(1, round(merged.shape[2] * scale)), max(1, round(merged.shape[1] * scale)))
    merged = np.stack([cv2.resize(map_, size, interpolation=cv2.INTER_LINEAR) for map_ in merged])
    labels = merged.argmax(axis=0)
    found = [
        subject
        for index in range(len(CATEGORIES))
        for subject in _subjects(labels == index + 1, merged[index + 1], index)
        if subject.score >= min_scores[index]
    ]
    return sorted(found, key=lambda subject: -subject.weight)


def _one_outfit(probabilities: npt.NDArray[np.float32], dress: float) -> npt.NDArray[np.float32]:
    """Lets a whole body decide between a dress and a top with a skirt, not each cell by itself."""
    settled = probabilities.copy()
    worn = [TOPS, DRESS, BOTTOMS]
    total = probabilities[worn].sum(axis=0)
    others = np.stack([probabilities[:2].sum(axis=0), probabilities[3], *probabilities[6:]])
    count, parts = cv2.connectedComponents((total > others.max(axis=0)).astype(np.uint8))
    logs = np.log(np.maximum(probabilities, MIN_PROBABILITY))
    for part in range(1, count):
        own = parts == part
        body = logs[:, own]
        kept = max(
            OUTFITS,
            key=lambda outfit: (
                body[list(outfit[0])].max(axis=0).mean()
                + outfit[1]
                + (DRESS_WEIGHT * dress if DRESS in outfit[0] else 0.0)
            ),
        )[0]
        share = total[own] / np.maximum(probabilities[list(kept)][:, own].sum(axis=0), 1e-6)
        for index in worn:
            settled[index][own] = probabilities[index][own] * share if index in kept else 0.0
    return settled


def _subjects(
    mask: npt.NDArray[np.bool_], probability: npt.NDArray[np.float32], category: int
) -> list[Garment]:
    height, width = mask.shape
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    large = [
        part
        for part in range(1, count)
        if stats[part, cv2.CC_STAT_AREA] >= MIN_PART_SHARE * mask.size
    ]
    found = []
    for group in _linked(large, stats, LINK_DISTANCE[category] * max(height, width)):
        area = sum(int(stats[part, cv2.CC_STAT_AREA]) for part in group)
        if area < MIN_SUBJECT_SHARE[category] * mask.size:
            continue
        largest = max(int(stats[part, cv2.CC_STAT_AREA]) for part in group)
        main = [
            part for part in group if stats[part, cv2.CC_STAT_AREA] >= MIN_PART_OF_LARGEST * largest
        ]
        own = np.isin(parts, main)
        x_min, y_min = stats[main, cv2.CC_STAT_LEFT].min(), stats[main, cv2.CC_STAT_TOP].min()
        x_max = (stats[main, cv2.CC_STAT_LEFT] + stats[main, cv2.CC_STAT_WIDTH]).max()
        y_max = (stats[main, cv2.CC_STAT_TOP] + stats[main, cv2.CC_STAT_HEIGHT]).max()
        found.append(
            Garment(
                category=CATEGORIES[category],
                score=float(probability[own].mean()),
                box=(x_min / width, y_min / height, x_max / width, y_max / height),
                area=area / mask.size,
                mask=own,
            )
        )
    return found


def _linked(parts: list[int], stats: Stats, distance: float) -> list[list[int]]:
    """Groups parts whose boxes are no farther apart than `distance`, through others too."""
    groups: list[list[int]] = []
    for part in parts:
        near = [
            group for group in groups if any(_gap(stats[part], stats[o]) <= distance for o in group)
        ]
        groups = [group for group in groups if group not in near]
        groups.append([part, *(other for group in near for other in group)])
    return groups


def _gap(a: Stats, b: Stats) -> float:
    across = max(a[0], b[0]) - min(a[0] + a[2], b[0] + b[2])
    down = max(a[1], b[1]) - min(a[1] + a[3], b[1] + b[3])
    return float(max(0, across, down))


def overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)
