"""Measure the committed models of product search in combination, as the service uses them.

    pip install -e '.[embedding,demo]'
    python -m imagesearch_services.models.product.measure

Only held-out pictures are measured (`splits.py`). False detections of clothing are measured on
groceries, and on photos and textures of scikit-image.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime
import skimage

from imagesearch_services.common.types import Category
from imagesearch_services.embedding.subjects.clothing import (
    CATEGORIES,
    SUBJECT_MAP,
    Garment,
    find_garments,
    iou,
    segment_garments,
)
from imagesearch_services.embedding.subjects.colors import Gains, illuminant_gains, name_colors
from imagesearch_services.models.common.pictures import Picture, data_folder
from imagesearch_services.models.product.garment_kinds import CATEGORY_OF_KIND, KINDS
from imagesearch_services.models.product.parser_classes import (
    CLASSES,
    FIRST_CLOTHING,
    HEIGHT_PX,
    IGNORE,
    WIDTH_PX,
)
from imagesearch_services.models.product.parser_examples import read_street
from imagesearch_services.models.product.pictures import catalogue, read, shelf
from imagesearch_services.models.product.served import (
    PARSER,
    PRODUCT,
    PRODUCT_SIDE_PX,
    Models,
    find_as_served,
)
from imagesearch_services.models.product.splits import embedding_split, parser_split

MIN_OVERLAP = 0.5
"""Minimum intersection over union of a detected box and a true box."""
SINGLE_MIN_SCORE = 0.6
"""Minimum score of all categories, in the variants with a single minimum."""
TIMED_RUNS = 60
"""Number of timed runs of each model."""
MIN_MASK_SHARE = 0.1
"""Share of a labeled crop that the parser's mask must cover; else the saliency mask is used."""
SCIKIT_IMAGES = (
    *("brick", "chelsea", "coffee", "coins", "grass", "gravel", "horse", "hubble_deep_field"),
    *("ihc", "moon", "motorcycle_left", "page", "rocket", "text", "retina", "phantom", "cell"),
    "clock_motion",
)
"""Pictures of scikit-image without a dressed person."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of the data set")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = options.threads
    session.add_session_config_entry("session.intra_op.allow_spinning", "0")
    models = Models(
        onnxruntime.InferenceSession(PARSER, session),
        onnxruntime.InferenceSession(PRODUCT, session),
    )
    split = parser_split()
    data = options.data
    measure_street(models, [data / f"street/photos/{name}.jpg" for name in split.street])
    measure_garments(models, [data / name for name in embedding_split().garments_held_out])
    held_out = set(split.groceries)
    groceries = [file for file in catalogue(data) if file.stem in held_out]
    groceries += [file for file in shelf(data) if file.parent.name in held_out]
    measure_false_clothing(models, "groceries", [read(file) for file in groceries])
    measure_false_clothing(models, "scikit-image", scikit_image_pictures())
    measure_colors(models, data)
    measure_time()


@dataclass(frozen=True)
class Tally:
    """Counts of detected and true subjects."""

    right: Counter[Category]
    """Detected subjects that match a true subject."""
    detected: Counter[Category]
    true: Counter[Category]
    photos: int
    """Photos with a true subject."""
    main_right: int
    """Photos whose main subject is right."""

    @classmethod
    def of(cls, detected: Sequence[list[Garment]], true: Sequence[list[Garment]]) -> Tally:
        """Match boxes of the same category greedily, in order of score; IoU ≥ `MIN_OVERLAP`."""
        right: Counter[Category] = Counter()
        main_right = 0
        for subjects, truth in zip(detected, true, strict=True):
            unmatched = list(truth)
            for found in sorted(subjects, key=lambda subject: -subject.score):
                own = [subject for subject in unmatched if subject.category == found.category]
                best = max(own, key=lambda subject: iou(subject.box, found.box), default=None)
                if best is not None and iou(best.box, found.box) >= MIN_OVERLAP:
                    unmatched.remove(best)
                    right[found.category] += 1
            main_right += bool(
                subjects
                and truth
                and subjects[0].category == truth[0].category
                and iou(subjects[0].box, truth[0].box) >= MIN_OVERLAP
            )
        counts = [
            Counter(subject.category for subjects in photos for subject in subjects)
            for photos in (detected, true)
        ]
        return cls(right, counts[0], counts[1], sum(map(bool, true)), main_right)

    def line(self, categories: Sequence[Category] = CATEGORIES) -> str:
        """Return precision, recall and number of true subjects as cells of a table."""
        right, detected, true = (
            sum(counts[category] for category in categories)
            for counts in (self.right, self.detected, self.true)
        )
        return f"{right / max(1, detected):.3f} | {right / max(1, true):.3f} | {true}"


def measure_street(models: Models, photos: Sequence[Path]) -> None:
    """Print precision and recall on street photos, adding the steps of detection in turn."""
    truth, parsed = [], []
    for photo in photos:
        picture, classes = read_street(photo)
        classes = np.where(classes == IGNORE, 0, classes)
        labels = [classes == index for index in range(len(CLASSES))]
        truth.append(segment_garments(np.stack(labels).astype(np.float32)))
        first, both, dress = models.parse(picture)
        parsed.append((first[: len(CLASSES)], both[: len(CLASSES)], dress))
    min_scores = (SINGLE_MIN_SCORE,) * len(CATEGORIES)
    variants: dict[str, list[list[Garment]]] = {
        f"each cell independently, scores from {SINGLE_MIN_SCORE}": [
            segment_garments(first, min_scores) for first, _, _ in parsed
        ],
        f"an outfit per body, scores from {SINGLE_MIN_SCORE}": [
            find_garments(first, min_scores) for first, _, _ in parsed
        ],
        "… and the log odds of a dress, accessories with twice the weight": [
            find_garments(first, min_scores, dress_log_odds=dress) for first, _, dress in parsed
        ],
        "… and a second pass": [
            find_garments(both, min_scores, dress_log_odds=dress) for _, both, dress in parsed
        ],
        "… and scores by category": [
            find_as_served(first, both, dress) for first, both, dress in parsed
        ],
        "the same without the second pass": [
            find_as_served(first, first, dress) for first, _, dress in parsed
        ],
    }
    print(f"street, {len(photos)} photos held out, IoU {MIN_OVERLAP}")
    print("| | precision | recall | n | main subject right |\n|---|---|---|---|---|")
    tally = Tally.of([], [])
    for variant, detected in variants.items():
        tally = Tally.of(detected, truth)
        print(f"| {variant} | {tally.line()} | {tally.main_right / tally.photos:.3f} |")
    tally = Tally.of(variants["… and scores by category"], truth)
    for category in CATEGORIES:
        print(f"| … {category.name} | {tally.line([category])} | |")
    large = [
        category for category in CATEGORIES if category not in {Category.BAG, Category.ACCESSORIES}
    ]
    print(f"| … without bags and accessories | {tally.line(large)} | |")


def measure_garments(models: Models, photos: Sequence[Path]) -> None:
    """Print the accuracy of the category of single garments."""
    by_parser = by_both = by_kind = 0
    for photo in photos:
        picture = read(photo)
        category = Category[CATEGORY_OF_KIND[photo.parent.name]]
        found = models.find(picture)
        by_parser += bool(found and found[0].category == category)
        final = models.named_by_kind(picture, found)
        by_both += bool(final and final[0].category == category)
        by_kind += CATEGORY_OF_KIND[KINDS[int(models.kinds(picture).argmax())]] == category.name
    count = len(photos)
    print(f"single garments, {count} held out: accuracy of the category by the parser "
          f"{by_parser / count:.3f}, by the kind of the crop {by_both / count:.3f}, by the kind of "
          f"the whole picture {by_kind / count:.3f}")  # fmt: skip


def measure_false_clothing(models: Models, label: str, pictures: Sequence[Picture]) -> None:
    """Print the share of pictures without clothing in which clothing is detected."""
    in_maps = sum(bool(models.find(picture)) for picture in pictures)
    served = sum(
        any(subject.garment_category for subject in models.serve(picture)) for picture in pictures
    )
    print(f"{label}: clothing detected in {served} of {len(pictures)} pictures without clothing "
          f"({served / max(1, len(pictures)):.3f}); by the maps alone in {in_maps}")  # fmt: skip


def scikit_image_pictures() -> list[Picture]:
    """Read the pictures of scikit-image without a dressed person."""
    folder = Path(skimage.__file__).parent / "data"
    files = [file for name in SCIKIT_IMAGES for file in folder.glob(f"{name}.*")]
    return [read(file) for file in files if file.suffix in {".png", ".jpg", ".jpeg"}]


def measure_colors(models: Models, data: Path) -> None:
    """Print the accuracy of color names on the parser's masks, against labels made by eye."""
    for file, label in (
        ("color_labels.json", "crops labeled by eye"),
        ("color_training_labels.json", "other crops, on which the estimate of the light was tuned"),
    ):
        labeled = json.loads((Path(__file__).with_name(file)).read_text())
        labeled = [item for item in labeled if "color" in item]
        first = allowed = 0
        for item in labeled:
            named = name_colors(*colored(models, data, item))
            name = named[0].name if named else ""
            first += name == item["color"]
            allowed += name in (item["color"], item.get("also"))
        print(f"color, {len(labeled)} {label}: {first / len(labeled):.3f} the first name, "
              f"{allowed / len(labeled):.3f} a name that the label allows")  # fmt: skip


def colored(
    models: Models, data: Path, item: dict[str, Any]
) -> tuple[Picture, npt.NDArray[np.bool_], Gains]:
    """Return a labeled crop, its mask by the parser, and the white balance gains of the picture."""
    picture = read(data / item["file"])
    _, maps, _ = models.parse(picture)
    size = (picture.shape[1], picture.shape[0])
    maps = np.stack([cv2.resize(map_, size) for map_ in maps])
    classes = maps[: len(CLASSES)].argmax(0)
    if "box" in item:
        x_min, y_min, x_max, y_max = item["box"]
        inner = (slice(y_min, y_max), slice(x_min, x_max))
        mask = classes[inner] == CLASSES.index(item["class"])
    else:
        inner = (slice(None), slice(None))
        mask = classes >= FIRST_CLOTHING
    if mask.sum() < MIN_MASK_SHARE * mask.size:
        mask = maps[SUBJECT_MAP][inner] > 0.5
    return picture[inner], mask, illuminant_gains(picture)


def measure_time() -> None:
    """Print the minimum time over `TIMED_RUNS` runs of each model on a random picture."""
    rng = np.random.default_rng(0)
    print("| model | file | 1 thread | 2 threads |\n|---|---|---|---|")
    for file, size in (
        (PARSER, (HEIGHT_PX, WIDTH_PX)),
        (PRODUCT, (PRODUCT_SIDE_PX,) * 2),
    ):
        name, min_ms = file.parents[1].name, []
        for threads in (1, 2):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            session = onnxruntime.InferenceSession(file, options)
            image = rng.integers(0, 256, (1, *size, 3)).astype(np.uint8)
            took_ms = []
            for _ in range(TIMED_RUNS):
                start = time.perf_counter()
                session.run(None, {"image": image})
                took_ms.append((time.perf_counter() - start) * 1000)
            min_ms.append(min(took_ms))
        print(f"| {name} | {file.stat().st_size / 1e6:.1f} MB | {min_ms[0]:.0f} ms "
              f"| {min_ms[1]:.0f} ms |")  # fmt: skip


if __name__ == "__main__":
    main()
