"""Measure the committed models of product search together, as the service uses them.

    pip install -e '.[export,embedding,demo]'
    python -m imagesearch_services.models.product.measure

Only pictures that no model learned from are measured (`splits.py`). Photos and textures of
scikit-image are a third kind of picture without clothing.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from imagesearch_services.common.types import Box, Category
from imagesearch_services.embedding.pictures import Picture as Shown
from imagesearch_services.embedding.preprocess import InputSpec, Resize
from imagesearch_services.embedding.subjects.clothing import (
    CATEGORIES,
    MIN_SCORES,
    MIN_SCORES_WITH_PERSON,
    SUBJECT_MAP,
    Garment,
    find_garments,
    iou,
    segment_garments,
)
from imagesearch_services.embedding.subjects.colors import Gains, illuminant_gains, name_colors
from imagesearch_services.embedding.subjects.finding import (
    FoundSubject,
    crop_box,
    find_subjects,
    second_pass_boxes,
    without_letterbox,
)
from imagesearch_services.embedding.subjects.second_pass import Shares, body_halves, merge_maps
from imagesearch_services.models.common.pictures import Picture, data_folder
from imagesearch_services.models.common.prepared import committed_weights
from imagesearch_services.models.product.garment_heads import CATEGORY_OF_KIND, KINDS
from imagesearch_services.models.product.pictures import catalogue, crop, letterbox, read, shelf
from imagesearch_services.models.product.splits import embedding_split, parser_split
from imagesearch_services.models.product.train_parser import (
    CLASSES,
    HEIGHT_PX,
    IGNORE,
    WIDTH_PX,
    read_street,
)

HERE = Path(__file__).parent
PARSER, PRODUCT = committed_weights("subject_parser", 2), committed_weights("product", 2)
STRIDE = 8
SPEC = InputSpec(WIDTH_PX, HEIGHT_PX, Resize.LETTERBOX)
PRODUCT_SIDE_PX = 384
CLOTHING_KIND_MIN_SCORE = 0.5
MIN_OVERLAP = 0.5
"""Intersection over union from which two boxes are one."""
EVEN_MIN_SCORE = 0.6
TIMED_RUNS = 60
MIN_MASK_SHARE = 0.1
"""Of a labelled crop: with less the parser saw something else there."""

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Models:
    parser: onnxruntime.InferenceSession
    product: onnxruntime.InferenceSession

    def look(self, picture: Picture) -> tuple[Array, Array, float]:
        """What the parser says of a picture, as the service asks it.

        Returns:
            Maps of the first look alone, [10, height, width]; those after the second; the log odds
            of a dress.
        """
        first, dress = self._maps(picture)
        halves = body_halves(first)
        parts = [self._maps(cut(picture, half))[0] for half in halves]
        return first, merge_maps(first, list(zip(halves, parts, strict=True))), dress

    def find(self, picture: Picture) -> list[Garment]:
        """Clothing in the maps, whatever else stands out."""
        first, maps, dress = self.look(picture)
        return find_as_served(first, maps[: len(CLASSES)], dress)

    def serve(self, picture: Picture) -> list[FoundSubject]:
        """Subjects as the service finds them."""
        shown = Shown(Image.fromarray(picture), picture.shape[1], picture.shape[0])
        whole = Box(0, 0, shown.width, shown.height)
        maps, dress = self._ask(picture)
        boxes = second_pass_boxes(whole, maps, SPEC, STRIDE)
        parts = [(box, self._ask(crop_box(shown, box, 1 << 20))[0]) for box in boxes]
        return find_subjects(
            shown, whole, maps, SPEC, STRIDE, second_pass=parts, dress_log_odds=dress
        )

    def _maps(self, picture: Picture) -> tuple[Array, float]:
        found, dress = self._ask(picture)
        box = Box(0, 0, picture.shape[1], picture.shape[0])
        return without_letterbox(found, box, SPEC, STRIDE), dress

    def _ask(self, picture: Picture) -> tuple[Array, float]:
        image = letterbox(picture, WIDTH_PX, HEIGHT_PX)
        found, dress = self.parser.run(["maps", "dress"], {"image": image[None]})
        return found[0], float(dress[0, 0])

    def kinds(self, picture: Picture) -> Array:
        """Probabilities of KINDS for what a crop shows."""
        image = letterbox(picture, PRODUCT_SIDE_PX, PRODUCT_SIDE_PX)
        found = self.product.run(["attributes"], {"image": image[None]})[0][0]
        return np.asarray(found[: len(KINDS)])

    def named_by_kind(self, picture: Picture, found: list[Garment]) -> list[Garment]:
        """Gives clothing that is alone in a picture the category of its kind."""
        if len(found) != 1:
            return found
        kinds = self.kinds(crop(picture, in_pixels(found[0], picture)))
        if kinds.max() < CLOTHING_KIND_MIN_SCORE:
            return found
        return [replace(found[0], category=Category[CATEGORY_OF_KIND[KINDS[int(kinds.argmax())]]])]


def find_as_served(first: Array, maps: Array, dress: float) -> list[Garment]:
    """Finds clothing as the service does: otherwise where somebody is than where nobody is."""
    if body_halves(first):
        return find_garments(maps, MIN_SCORES_WITH_PERSON, dress_log_odds=dress)
    return find_garments(maps, MIN_SCORES)


def cut(picture: Picture, part: Shares) -> Picture:
    height, width = picture.shape[:2]
    return picture[
        math.floor(part[1] * height) : math.ceil(part[3] * height),
        math.floor(part[0] * width) : math.ceil(part[2] * width),
    ]


def in_pixels(subject: Garment, picture: Picture) -> tuple[int, int, int, int]:
    height, width = picture.shape[:2]
    x_min, y_min, x_max, y_max = subject.box
    return round(x_min * width), round(y_min * height), round(x_max * width), round(y_max * height)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
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
    measure_colours(models, data)
    measure_time()


@dataclass(frozen=True)
class Tally:
    """How subjects that are told compare with those that are there."""

    right: Counter[Category]
    told: Counter[Category]
    there: Counter[Category]
    photos: int
    main_right: int

    @classmethod
    def of(cls, told: Sequence[list[Garment]], there: Sequence[list[Garment]]) -> Tally:
        """Matches boxes of a category greedily, the surest first, at an IoU of a half."""
        right: Counter[Category] = Counter()
        main_right = 0
        for claims, truth in zip(told, there, strict=True):
            left = list(truth)
            for claim in sorted(claims, key=lambda subject: -subject.score):
                own = [subject for subject in left if subject.category == claim.category]
                best = max(own, key=lambda subject: iou(subject.box, claim.box), default=None)
                if best is not None and iou(best.box, claim.box) >= MIN_OVERLAP:
                    left.remove(best)
                    right[claim.category] += 1
            main_right += bool(
                claims
                and truth
                and claims[0].category == truth[0].category
                and iou(claims[0].box, truth[0].box) >= MIN_OVERLAP
            )
        count = [Counter(s.category for found in each for s in found) for each in (told, there)]
        return cls(right, count[0], count[1], sum(map(bool, there)), main_right)

    def line(self, categories: Sequence[Category] = CATEGORIES) -> str:
        right, told, there = (
            sum(counts[category] for category in categories)
            for counts in (self.right, self.told, self.there)
        )
        return f"{right / max(1, told):.3f} | {right / max(1, there):.3f} | {there}"


def measure_street(models: Models, photos: Sequence[Path]) -> None:
    truth, looks = [], []
    for photo in photos:
        picture, classes = read_street(photo)
        classes = np.where(classes == IGNORE, 0, classes)
        labels = [classes == index for index in range(len(CLASSES))]
        truth.append(segment_garments(np.stack(labels).astype(np.float32)))
        first, both, dress = models.look(picture)
        looks.append((first[: len(CLASSES)], both[: len(CLASSES)], dress))
    even = (EVEN_MIN_SCORE,) * len(CATEGORIES)
    ways: dict[str, list[list[Garment]]] = {
        f"each cell by itself, scores from {EVEN_MIN_SCORE}": [
            segment_garments(first, even) for first, _, _ in looks
        ],
        f"one outfit a body, scores from {EVEN_MIN_SCORE}": [
            find_garments(first, even) for first, _, _ in looks
        ],
        "… and how likely a dress is, accessories twice": [
            find_garments(first, even, dress_log_odds=dress) for first, _, dress in looks
        ],
        "… and a second pass": [
            find_garments(both, even, dress_log_odds=dress) for _, both, dress in looks
        ],
        "… and scores by category": [
            find_as_served(first, both, dress) for first, both, dress in looks
        ],
        "the same, the first look alone": [
            find_as_served(first, first, dress) for first, _, dress in looks
        ],
    }
    print(f"street, {len(photos)} photos held out, IoU {MIN_OVERLAP}")
    print("| | precision | recall | n | main subject right |\n|---|---|---|---|---|")
    tally = Tally.of([], [])
    for way, told in ways.items():
        tally = Tally.of(told, truth)
        print(f"| {way} | {tally.line()} | {tally.main_right / tally.photos:.3f} |")
    tally = Tally.of(ways["… and scores by category"], truth)
    for category in CATEGORIES:
        print(f"| … {category.name} | {tally.line([category])} | |")
    large = [
        category for category in CATEGORIES if category not in {Category.BAG, Category.ACCESSORIES}
    ]
    print(f"| … without bags and accessories | {tally.line(large)} | |")


def measure_garments(models: Models, photos: Sequence[Path]) -> None:
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
    print(f"garments alone, {count} held out: category right by the parser {by_parser / count:.3f},"
          f" by the kind of its crop {by_both / count:.3f}, by the kind of the whole picture "
          f"{by_kind / count:.3f}")  # fmt: skip


def measure_false_clothing(models: Models, label: str, pictures: Sequence[Picture]) -> None:
    in_maps = sum(bool(models.find(picture)) for picture in pictures)
    served = sum(
        any(subject.garment_category for subject in models.serve(picture)) for picture in pictures
    )
    print(f"{label}: clothing told in {served} of {len(pictures)} pictures without any "
          f"({served / max(1, len(pictures)):.3f}); in the maps alone in {in_maps}")  # fmt: skip


def scikit_image_pictures() -> list[Picture]:
    """What scikit-image ships, less what shows a dressed person."""
    try:
        import skimage  # noqa: PLC0415 an extra of this script alone
    except ImportError:
        return []
    folder = Path(skimage.__file__).parent / "data"
    names = ["brick", "chelsea", "coffee", "coins", "grass", "gravel", "horse",
             "hubble_deep_field", "ihc", "moon", "motorcycle_left", "page", "rocket", "text",
             "retina", "phantom", "cell", "clock_motion"]  # fmt: skip
    files = [file for name in names for file in folder.glob(f"{name}.*")]
    return [read(file) for file in files if file.suffix in {".png", ".jpg", ".jpeg"}]


def measure_colours(models: Models, data: Path) -> None:
    """Compares with labels that were given by eye; the mask is the parser's."""
    for file, label in (
        ("color_labels.json", "crops labelled by eye"),
        ("color_training_labels.json", "others, by which the light is estimated as it is"),
    ):
        labelled = json.loads((HERE / file).read_text())
        labelled = [item for item in labelled if "color" in item]
        first = either = 0
        for item in labelled:
            named = name_colors(*coloured(models, data, item))
            told = named[0].name if named else ""
            first += told == item["color"]
            either += told in (item["color"], item.get("also"))
        print(f"colour, {len(labelled)} {label}: {first / len(labelled):.3f} the first name, "
              f"{either / len(labelled):.3f} a name that the label allows")  # fmt: skip


def coloured(
    models: Models, data: Path, item: dict[str, Any]
) -> tuple[Picture, npt.NDArray[np.bool_], Gains]:
    """Gives what is labelled, the parser's mask of it, and the picture's light."""
    picture = read(data / item["file"])
    _, maps, _ = models.look(picture)
    size = (picture.shape[1], picture.shape[0])
    maps = np.stack([cv2.resize(map_, size) for map_ in maps])
    classes = maps[: len(CLASSES)].argmax(0)
    if "box" in item:
        x_min, y_min, x_max, y_max = item["box"]
        inner = (slice(y_min, y_max), slice(x_min, x_max))
        mask = classes[inner] == CLASSES.index(item["class"])
    else:
        inner = (slice(None), slice(None))
        mask = classes >= 2
    if mask.sum() < MIN_MASK_SHARE * mask.size:
        mask = maps[SUBJECT_MAP][inner] > 0.5
    return picture[inner], mask, illuminant_gains(picture)


def measure_time() -> None:
    """Of the bare models, on pictures of noise; the least of many runs, others may be busy."""
    chance = np.random.default_rng(0)
    print("| model | file | 1 thread | 2 threads |\n|---|---|---|---|")
    for file, size in (
        (PARSER, (HEIGHT_PX, WIDTH_PX)),
        (PRODUCT, (PRODUCT_SIDE_PX,) * 2),
    ):
        name, least_ms = file.parents[1].name, []
        for threads in (1, 2):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            session = onnxruntime.InferenceSession(file, options)
            image = chance.integers(0, 256, (1, *size, 3)).astype(np.uint8)
            took_ms = []
            for _ in range(TIMED_RUNS):
                start = time.perf_counter()
                session.run(None, {"image": image})
                took_ms.append((time.perf_counter() - start) * 1000)
            least_ms.append(min(took_ms))
        print(f"| {name} | {file.stat().st_size / 1e6:.1f} MB | {least_ms[0]:.0f} ms "
              f"| {least_ms[1]:.0f} ms |")  # fmt: skip


if __name__ == "__main__":
    main()
