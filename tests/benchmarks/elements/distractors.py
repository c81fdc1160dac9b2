"""Elements that nobody asks for: windows of photos that share no place with any query.

    python -m tests.benchmarks.elements.distractors --photos 1700

Each is described as an element is, by words, features and the dense model's vector, but a whole
photo at once: its features are cut by box, and its vectors are those of the model's windows. Photos
of shelves are left out, since they show packages that the benchmark stores. The windows of one
photo overlap, so the first N are taken from all photos evenly, not from the first few. What was
described is kept in `.cache/elements/windows`, and a run goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime

from imagesearch_services.embedding.elements.features import (
    STORED_LIMITS,
    Keypoints,
    StoredElement,
    may_be_inverted,
)
from imagesearch_services.embedding.elements.vocabulary import Vocabulary
from imagesearch_services.embedding.geometry import Box
from imagesearch_services.embedding.local_features import ExtractionLimits, extract
from imagesearch_services.embedding.windows import STEP_PX, Windows
from tests.benchmarks.copies.dataset import all_names, data_folder
from tests.benchmarks.elements import dataset

MODEL = dataset.ROOT / "deploy/triton/models/dense/1/model.onnx"
WINDOWS = {"windows": "0.6667x0.6667:3x3,0.5x0.5:4x4,0.375x0.375:6x6", "windows_side_px": "640"}
"""Of the model's those that are not too small to be elements: garments are 300 pixels high."""
WHOLE_PX = 288
PHOTO_LIMITS = ExtractionLimits(max_features=2500, border_px=24)
PHOTOS = 1640
PHOTOS_A_FILE = 20

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Distractor:
    """One window."""

    features: bytes
    words: Words
    """Nearest of every feature; of the negative, too, where there are few."""
    vector: npt.NDArray[np.float16]
    """Unit length, [dimensions]."""


class Dense:
    """The dense model, in this process."""

    def __init__(self, model: Path = MODEL) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options)

    def whole(self, pixels: npt.NDArray[np.uint8]) -> Floats:
        """Describe an element, RGB [height, width, 3] → [dimensions]."""
        small = cv2.resize(pixels, (WHOLE_PX, WHOLE_PX), interpolation=cv2.INTER_AREA)
        return np.asarray(self._session.run(["embedding"], {"image": small[None]})[0][0])

    def all(self, pixels: npt.NDArray[np.uint8]) -> Floats:
        """Describe a photo and its windows, [1 + windows, dimensions]."""
        image = at_window_size(pixels)
        whole, windows = self._session.run(["embedding", "windows"], {"image": image[None]})
        return np.concatenate([whole, windows[0]])


def at_window_size(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    factor = int(WINDOWS["windows_side_px"]) / max(height, width)
    size = [max(2, round(side * factor / STEP_PX)) * STEP_PX for side in (width, height)]
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, size, interpolation=way), np.uint8)


def distractors(count: int, photos: int = PHOTOS) -> Iterator[Distractor]:
    """Give so many, evenly from all photos."""
    several = [photo for part in _parts(photos) for photo in part]
    for number in range(Windows.from_parameters(WINDOWS).count):
        for row, photo in enumerate(several):
            if number * len(several) + row == count:
                return
            yield photo[number]
    raise SystemExit(f"{photos} photos give fewer than {count} distractors")


def chosen_photos(data: Path) -> list[str]:
    """Name photos that no element and no query is made of, in the order in which they are taken."""
    names = all_names(data)
    street = [name for name in names if name.startswith("street")][420:]
    garments = [name for name in names if name.startswith("garments")][540:]
    return sorted([*street, *garments], key=lambda name: hashlib.sha256(name.encode()).digest())


def _parts(photos: int) -> Iterator[list[list[Distractor]]]:
    vocabulary, data = Vocabulary.load(), data_folder()
    chosen = chosen_photos(data)
    folder = dataset.CACHE / "windows"
    folder.mkdir(parents=True, exist_ok=True)
    dense = Dense()
    for start in range(0, photos, PHOTOS_A_FILE):
        file = folder / f"{start:05d}.pkl"
        if not file.exists():
            part = chosen[start : start + PHOTOS_A_FILE]
            made = [list(_windows(data / name, vocabulary, dense)) for name in part]
            rows = [[(one.features, one.words, one.vector) for one in photo] for photo in made]
            file.write_bytes(pickle.dumps(rows))
        read = pickle.loads(file.read_bytes())  # noqa: S301  # our own file
        yield [[Distractor(*one) for one in photo] for photo in read]


def _windows(photo: Path, vocabulary: Vocabulary, dense: Dense) -> Iterator[Distractor]:
    pixels = at_window_size(dataset.read_pixels(photo))
    vectors = dense.all(pixels)[1:].astype(np.float16)
    found = extract(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8), PHOTO_LIMITS)
    projected = vocabulary.project(found.descriptors)
    codes = vocabulary.encode(projected)
    words, negative_words = (
        vocabulary.words(one, 1)[0][:, 0] for one in (projected, vocabulary.inverted(projected))
    )
    height, width = pixels.shape[:2]
    boxes = Windows.from_parameters(WINDOWS).boxes(Box(0, 0, width, height))
    order = dataset.random_source("windows", photo.name).sample(range(len(boxes)), len(boxes))
    for number in order:
        box = boxes[number]
        x, y = found.points[:, 0] - box.x_min, found.points[:, 1] - box.y_min
        inside = (x >= 0) & (y >= 0) & (x < box.width) & (y < box.height)
        # Strongest first, as in elements that are stored alone.
        rows = np.flatnonzero(inside)[: STORED_LIMITS.max_features]
        points = found.points[rows] - np.array((box.x_min, box.y_min), np.float32)
        keypoints = Keypoints(points, found.sizes[rows], found.angles[rows])
        element = StoredElement(round(box.width), round(box.height), keypoints, codes[rows])
        several = [words[rows]]
        if may_be_inverted(len(rows)):
            several.append(negative_words[rows])
        yield Distractor(element.to_bytes(), np.concatenate(several), vectors[number])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=int, default=PHOTOS)
    made = sum(len(part) for part in _parts(parser.parse_args().photos))
    print(f"{made} photos are described")  # noqa: T201


if __name__ == "__main__":
    main()
