"""Elements that nobody asks for: windows of photos that share no place with any query.

    python -m tests.benchmarks.elements.distractors --photos 1700

Each is described as an element is, by words, features and the dense model's vector, but a whole
photo at once: its features are cut by box, and its vectors are those of the model's windows. Photos
of shelves are left out, since they show packages that the benchmark stores. The windows of one
photo overlap, so the first N are taken from all photos evenly, not from the first few. What was
described is kept in `.cache/elements/windows`, vectors beside it for each model, and a run goes on
where it was stopped.
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
from imagesearch_services.embedding.local_features import ExtractionLimits, extract
from imagesearch_services.embedding.windows import STEP_PX, Windows
from imagesearch_services.models.common.pictures import data_folder, random_source, read_pixels
from imagesearch_services.models.common.prepared import committed_weights
from imagesearch_services.models.elements.sources import FOLDER, unused_photos
from imagesearch_services.models.elements.vocabulary import DISTRACTOR_PHOTOS

MODEL = committed_weights("dense", 2)
WINDOWS = {"windows": "0.6667x0.6667:3x3,0.5x0.5:4x4,0.375x0.375:6x6", "windows_side_px": "640"}
"""Of the model's those that are not too small to be elements: garments are 300 pixels high."""
WHOLE_PX = 288
PHOTO_LIMITS = ExtractionLimits(max_features=2500, border_px=24)
PHOTOS_A_FILE = 20

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.int64]
Local = tuple[bytes, Words]
"""Features and words."""


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


def distractors(count: int, photos: int = DISTRACTOR_PHOTOS) -> Iterator[Distractor]:
    """Give so many, evenly from all photos."""
    several = [photo for part in _parts(photos) for photo in part]
    for number in range(Windows.from_parameters(WINDOWS).count):
        for row, photo in enumerate(several):
            if number * len(several) + row == count:
                return
            yield photo[number]
    raise SystemExit(f"{photos} photos give fewer than {count} distractors")


def _parts(photos: int) -> Iterator[list[list[Distractor]]]:
    data = data_folder()
    chosen = [data / name for name in unused_photos(data)]
    describe = _Describe()
    for start in range(0, photos, PHOTOS_A_FILE):
        part = chosen[start : start + PHOTOS_A_FILE]
        yield [
            [
                Distractor(*local, vectors[number])
                for local, number in zip(locally, _order(photo), strict=True)
            ]
            for photo, locally, vectors in zip(
                part, describe.locally(start, part), describe.regionally(start, part), strict=True
            )
        ]


class _Describe:
    """Describes some photos at once, or reads what was described before."""

    def __init__(self) -> None:
        self._vocabulary, self._dense = Vocabulary.load(), Dense()
        self._folder = FOLDER / "windows"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._model = hashlib.sha256(MODEL.read_bytes()).hexdigest()[:8]

    def locally(self, start: int, photos: Sequence[Path]) -> Sequence[Sequence[Local]]:
        """Give the features and words of every window, in the order in which they are taken."""
        file = self._folder / f"{start:05d}-local.pkl"
        if not file.exists():
            made = [list(_windows(photo, self._vocabulary)) for photo in photos]
            file.write_bytes(pickle.dumps(made))
        read: Sequence[Sequence[Local]] = pickle.loads(file.read_bytes())  # noqa: S301  # our own
        return read

    def regionally(self, start: int, photos: Sequence[Path]) -> npt.NDArray[np.float16]:
        """Give the vectors of every window, [photos, windows, dimensions]."""
        file = self._folder / f"{start:05d}-{self._model}.npy"
        if not file.exists():
            pixels = [at_window_size(read_pixels(photo)) for photo in photos]
            count = len(_boxes(*pixels[0].shape[:2]))
            made = [self._dense.all(one)[1 : 1 + count] for one in pixels]
            np.save(file, np.stack(made).astype(np.float16))
        return np.asarray(np.load(file), np.float16)


def _boxes(height: int, width: int) -> list[Box]:
    return Windows.from_parameters(WINDOWS).boxes(Box(0, 0, width, height))


def _order(photo: Path) -> list[int]:
    """Say in which order the windows of a photo are taken."""
    count = Windows.from_parameters(WINDOWS).count
    return random_source("windows", photo.name).sample(range(count), count)


def _windows(photo: Path, vocabulary: Vocabulary) -> Iterator[Local]:
    pixels = at_window_size(read_pixels(photo))
    found = extract(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8), PHOTO_LIMITS)
    projected = vocabulary.project(found.descriptors)
    codes = vocabulary.encode(projected)
    words, negative_words = (
        vocabulary.words(one, 1)[0][:, 0] for one in (projected, vocabulary.inverted(projected))
    )
    boxes = _boxes(*pixels.shape[:2])
    for number in _order(photo):
        box = boxes[number]
        x, y = found.points[:, 0] - box.x_min, found.points[:, 1] - box.y_min
        inside = (x >= 0) & (y >= 0) & (x < box.width) & (y < box.height)
        # Strongest first, as in elements that are stored alone.
        rows = np.flatnonzero(inside)[: STORED_LIMITS.max_features]
        points = found.points[rows] - np.array((box.x_min, box.y_min), np.float32)
        keypoints = Keypoints(points, found.sizes[rows], found.angles[rows])
        element = StoredElement(round(box.width), round(box.height), keypoints, codes[rows])
        several = [words[rows]]
        if is_searched_inverted(len(rows)):
            several.append(negative_words[rows])
        yield element.to_bytes(), np.concatenate(several)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=int, default=DISTRACTOR_PHOTOS)
    made = sum(len(part) for part in _parts(parser.parse_args().photos))
    print(f"{made} photos are described")  # noqa: T201


if __name__ == "__main__":
    main()
