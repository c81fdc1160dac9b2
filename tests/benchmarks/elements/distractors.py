"""Describe distractors: stored elements that no query shows, cropped from photos.

    python -m tests.benchmarks.elements.distractors --photos 1700

A distractor is a window of a photo, with the words, local features and vector of an element. To
save time, each photo is described once: features are assigned to windows by position, and the
vectors are those of the dense model's windows. Photos of shelves are excluded, because they show
packages that the benchmark stores. The windows of a photo overlap, so the first N distractors are
taken evenly from all photos. Descriptions are cached in `.cache/elements/windows`, vectors
separately for each model; an interrupted run resumes.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime

from imagesearch_services.common.types import Box
from imagesearch_services.embedding.elements.bags import is_searched_inverted
from imagesearch_services.embedding.elements.description import STORED_LIMITS
from imagesearch_services.embedding.elements.features import Keypoints, StoredElement
from imagesearch_services.embedding.elements.vocabulary import Vocabulary
from imagesearch_services.embedding.features.local_features import ExtractionLimits, extract
from imagesearch_services.embedding.inference.windows import STEP_PX, Windows
from imagesearch_services.models.common.pictures import data_folder, random_source, read_pixels
from imagesearch_services.models.common.prepared import committed_weights
from imagesearch_services.models.elements.sources import FOLDER, unused_photos
from imagesearch_services.models.elements.vocabulary import DISTRACTOR_PHOTOS

MODEL = committed_weights("dense", 2)
WINDOWS = {"windows": "0.6667x0.6667:3x3,0.5x0.5:4x4,0.375x0.375:6x6", "windows_side_px": "640"}
"""Parameters of the dense model without the smallest level of windows.

In photos of garments, which are 300 pixels high, such windows would be too small for an element.
"""
WHOLE_PX = 288
"""Side of the dense model's input for an element, in pixels."""
PHOTO_LIMITS = ExtractionLimits(max_features=2500, border_px=24)
PHOTOS_PER_FILE = 20
"""Number of photos whose descriptions are in a cache file."""

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.int64]
Local = tuple[bytes, Words]
"""Serialized local features of a window, and their words."""


@dataclass(frozen=True, slots=True)
class Distractor:
    """A window of a photo, described as an element."""

    features: bytes
    words: Words
    """Word of each feature; if the window has few features, also of each inverted feature."""
    vector: npt.NDArray[np.float16]
    """Unit vector, [dimensions]."""


class Dense:
    """The dense model, run in this process."""

    def __init__(self, model: Path = MODEL) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options)

    def element_vector(self, pixels: npt.NDArray[np.uint8]) -> Floats:
        """Return the vector of an element, uint8 RGB [height, width, 3] → [dimensions]."""
        resized = cv2.resize(pixels, (WHOLE_PX, WHOLE_PX), interpolation=cv2.INTER_AREA)
        return np.asarray(self._session.run(["embedding"], {"image": resized[None]})[0][0])

    def photo_vectors(self, pixels: npt.NDArray[np.uint8]) -> Floats:
        """Return the vectors of a photo and of its windows, [1 + windows, dimensions]."""
        image = resized_for_windows(pixels)
        whole, windows = self._session.run(["embedding", "windows"], {"image": image[None]})
        return np.concatenate([whole, windows[0]])


def resized_for_windows(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    factor = int(WINDOWS["windows_side_px"]) / max(height, width)
    size = [max(2, round(side * factor / STEP_PX)) * STEP_PX for side in (width, height)]
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, size, interpolation=interpolation), np.uint8)


def distractors(count: int, photos: int = DISTRACTOR_PHOTOS) -> Iterator[Distractor]:
    """Yield `count` distractors, evenly from all photos."""
    by_photo = [windows for part in _parts(photos) for windows in part]
    for number in range(Windows.from_parameters(WINDOWS).count):
        for row, windows in enumerate(by_photo):
            if number * len(by_photo) + row == count:
                return
            yield windows[number]
    raise SystemExit(f"{photos} photos have fewer than {count} distractors; increase --photos")


def _parts(photos: int) -> Iterator[list[list[Distractor]]]:
    """Yield the distractors of some photos at a time, as a list for each photo."""
    data = data_folder()
    chosen = [data / name for name in unused_photos(data)]
    describer = _Describer()
    for start in range(0, photos, PHOTOS_PER_FILE):
        part = chosen[start : start + PHOTOS_PER_FILE]
        yield [
            [
                Distractor(*local, vectors[number])
                for local, number in zip(local_features, _order(photo), strict=True)
            ]
            for photo, local_features, vectors in zip(
                part,
                describer.local_features(start, part),
                describer.vectors(start, part),
                strict=True,
            )
        ]


class _Describer:
    """Describes photos, or reads their cached descriptions."""

    def __init__(self) -> None:
        self._vocabulary, self._dense = Vocabulary.load(), Dense()
        self._folder = FOLDER / "windows"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._model = hashlib.sha256(MODEL.read_bytes()).hexdigest()[:8]

    def local_features(self, start: int, photos: Sequence[Path]) -> Sequence[Sequence[Local]]:
        """Return the features and words of each photo's windows, in the order of `_order`."""
        file = self._folder / f"{start:05d}-local.pkl"
        if not file.exists():
            described = [list(_windows(photo, self._vocabulary)) for photo in photos]
            file.write_bytes(pickle.dumps(described))
        cached: Sequence[Sequence[Local]] = pickle.loads(file.read_bytes())  # noqa: S301  # our own
        return cached

    def vectors(self, start: int, photos: Sequence[Path]) -> npt.NDArray[np.float16]:
        """Return the vectors of each photo's windows, [photos, windows, dimensions]."""
        file = self._folder / f"{start:05d}-{self._model}.npy"
        if not file.exists():
            pixels = [resized_for_windows(read_pixels(photo)) for photo in photos]
            count = len(_boxes(*pixels[0].shape[:2]))
            vectors = [self._dense.photo_vectors(photo)[1 : 1 + count] for photo in pixels]
            np.save(file, np.stack(vectors).astype(np.float16))
        return np.asarray(np.load(file), np.float16)


def _boxes(height: int, width: int) -> list[Box]:
    return Windows.from_parameters(WINDOWS).boxes(Box(0, 0, width, height))


def _order(photo: Path) -> list[int]:
    """Return the random order in which the windows of a photo are used."""
    count = Windows.from_parameters(WINDOWS).count
    return random_source("windows", photo.name).sample(range(count), count)


def _windows(photo: Path, vocabulary: Vocabulary) -> Iterator[Local]:
    """Yield the local features and words of a photo's windows, in the order of `_order`."""
    pixels = resized_for_windows(read_pixels(photo))
    found = extract(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8), PHOTO_LIMITS)
    projected = vocabulary.project(found.descriptors)
    codes = vocabulary.encode(projected)
    words, negative_words = (
        vocabulary.words(descriptors, 1)[0][:, 0]
        for descriptors in (projected, vocabulary.inverted(projected))
    )
    boxes = _boxes(*pixels.shape[:2])
    for number in _order(photo):
        box = boxes[number]
        x, y = found.points[:, 0] - box.x_min, found.points[:, 1] - box.y_min
        inside = (x >= 0) & (y >= 0) & (x < box.width) & (y < box.height)
        # The strongest features, as in an element that is described alone.
        rows = np.flatnonzero(inside)[: STORED_LIMITS.max_features]
        points = found.points[rows] - np.array((box.x_min, box.y_min), np.float32)
        keypoints = Keypoints(points, found.sizes[rows], found.angles[rows])
        element = StoredElement(round(box.width), round(box.height), keypoints, codes[rows])
        window_words = [words[rows]]
        if is_searched_inverted(len(rows)):
            window_words.append(negative_words[rows])
        yield element.to_bytes(), np.concatenate(window_words)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=int, default=DISTRACTOR_PHOTOS)
    count = sum(len(part) for part in _parts(parser.parse_args().photos))
    print(f"described {count} photos")  # noqa: T201


if __name__ == "__main__":
    main()
