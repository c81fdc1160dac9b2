"""Training examples of the subject parser: pictures with labels or pseudo-labels."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from imagesearch_services.embedding.subjects.plain_background import foreground_box
from imagesearch_services.models.common.pictures import Picture
from imagesearch_services.models.product.parser_classes import (
    CLASS_OF_KIND,
    FIRST_CLOTHING,
    HEIGHT_PX,
    IGNORE,
    WIDTH_PX,
    Labels,
    street_classes,
)
from imagesearch_services.models.product.pictures import catalogue, garments, read, shelf

SALIENT = 200
"""Stored value of the highest saliency; the scale from 0 to 200 keeps IGNORE free."""
PSEUDO_LABELED_PER_KIND = 34
"""Number of pseudo-labeled garments of each kind."""
GROCERIES_SHARE = 0.5
"""Share of the shelf photos that are used."""
BACKGROUND_CROPS = 120
"""Number of crops of street photos without a person, as examples of background."""

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    image: Picture
    """[HEIGHT_PX, WIDTH_PX, 3]"""
    classes: Labels
    """Indices into CLASSES or IGNORE, [MAP_HEIGHT, MAP_WIDTH]."""
    saliency: Labels
    """From 0 to SALIENT, or IGNORE, same shape."""


@dataclass(frozen=True)
class Placement:
    """The placement of a picture in the frame of the network's input."""

    scale: float = 1.0
    """Size of the picture relative to the largest size that fits in the frame."""
    x: float = 0.5
    """Share of the free width on the left."""
    y: float = 0.5
    """Share of the free height above."""
    is_mirrored: bool = False
    fill: int = 127
    """Gray value of the frame."""


class Saliency:
    """Computes the saliency of a picture relative to its 99 % quantile, [height, width]."""

    MEAN = np.array([0.485, 0.456, 0.406], np.float32)
    DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
    SIDE_PX = 224

    def __init__(self, model: Path) -> None:
        self._session = onnxruntime.InferenceSession(model, one_thread())

    def __call__(self, picture: Picture) -> Array:
        small = cv2.resize(picture, (self.SIDE_PX, self.SIDE_PX), interpolation=cv2.INTER_AREA)
        pixels = (small.astype(np.float32) / 255 - self.MEAN) / self.DEVIATION
        saliency = self._session.run(None, {"input_image": pixels.transpose(2, 0, 1)[None]})[0][
            0, 0
        ]
        relative = saliency / np.quantile(saliency, 0.99)
        size = (picture.shape[1], picture.shape[0])
        return np.asarray(cv2.resize(relative, size, interpolation=cv2.INTER_LINEAR), np.float32)


def read_street(photo: Path) -> tuple[Picture, Labels]:
    """Read a street photo and the class of each pixel, [height, width]."""
    picture = read(photo)
    labels = np.asarray(Image.open(photo.parents[1] / "labels" / f"{photo.stem}.png"))
    size = (picture.shape[1], picture.shape[0])
    resized = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    return picture, street_classes()[resized]


def street_examples(photos: list[Path]) -> Iterator[Example]:
    """Yield three examples of each photo: unedited, mirrored and shifted, and cropped."""
    rng = random.Random(5)
    for photo in photos:
        picture, classes = read_street(photo)
        saliency = np.where(classes >= FIRST_CLOTHING, SALIENT, 0).astype(np.uint8)
        saliency[classes == IGNORE] = IGNORE
        yield place(picture, classes, saliency, Placement())
        moved = Placement(
            rng.uniform(0.7, 1),
            rng.random(),
            rng.random(),
            is_mirrored=True,
            fill=rng.choice([127, 127, 255, rng.randint(0, 255)]),
        )
        yield jittered(place(picture, classes, saliency, moved), rng)
        height, width = classes.shape
        zoom = rng.uniform(0.4, 0.9)
        rows, columns = int(height * zoom), int(width * min(1, zoom * rng.uniform(1, 1.4)))
        top, left = rng.randint(0, height - rows), rng.randint(0, width - columns)
        part = (slice(top, top + rows), slice(left, left + columns))
        maybe_mirrored = Placement(is_mirrored=rng.random() < 0.5)
        yield jittered(place(picture[part], classes[part], saliency[part], maybe_mirrored), rng)


def garment_examples(data: Path, held_out: set[str], salient: Saliency) -> Iterator[Example]:
    """Yield two examples of each garment; the folder sets the class, and saliency the mask."""
    rng = random.Random(9)
    for kind, index in CLASS_OF_KIND.items():
        files = [
            file
            for file in garments(data)
            if file.parent.name == kind and file.relative_to(data).as_posix() not in held_out
        ]
        for file in rng.sample(files, PSEUDO_LABELED_PER_KIND):
            picture = read(file)
            map_ = salient(picture)
            classes = np.where(map_ > 0.55, index, np.where(map_ < 0.2, 0, IGNORE))
            classes = classes.astype(np.uint8)
            fill = rng.choice([127, 127, 255])
            whole = Placement(1, rng.random(), rng.random(), fill=fill)
            yield place(picture, classes, _pseudo(map_), whole)
            moved = Placement(
                rng.uniform(0.7, 1), rng.random(), rng.random(), is_mirrored=True, fill=fill
            )
            yield jittered(place(picture, classes, _pseudo(map_), moved), rng)


def grocery_examples(
    data: Path, held_out: set[str], streets: list[Path], salient: Saliency
) -> Iterator[Example]:
    """Yield pictures without clothing: groceries, and crops of street photos without a person."""
    rng = random.Random(3)
    for file in catalogue(data):
        if file.stem in held_out:
            continue
        picture = read(file)
        box = foreground_box(picture)
        map_ = np.zeros(picture.shape[:2], np.float32)
        if box:
            map_[box[1] : box[3], box[0] : box[2]] = 1
        yield place(picture, np.zeros_like(map_, np.uint8), _pseudo(map_), Placement())
    for file in shelf(data):
        if file.parent.name in held_out or rng.random() > GROCERIES_SHARE:
            continue
        picture = read(file)
        mirrored = Placement(is_mirrored=rng.random() < 0.5)
        nothing = np.zeros(picture.shape[:2], np.uint8)
        yield jittered(place(picture, nothing, _pseudo(salient(picture)), mirrored), rng)
    cropped = 0
    while cropped < BACKGROUND_CROPS:
        picture, classes = read_street(rng.choice(streets))
        height, width = classes.shape
        side = rng.randint(100, min(height, width) // 2)
        top, left = rng.randint(0, height - side), rng.randint(0, width - side)
        part = (slice(top, top + side), slice(left, left + side))
        if (classes[part] != 0).mean() > 0.01:
            continue
        unknown = np.full((side, side), IGNORE, np.uint8)
        yield place(picture[part], np.zeros_like(unknown), unknown, Placement())
        cropped += 1


def _pseudo(map_: Array) -> Labels:
    """Return saliency labels in which high and low values are saturated."""
    saturated = np.where(map_ > 0.6, 1, np.where(map_ < 0.15, 0, map_))
    return (np.clip(saturated, 0, 1) * SALIENT).astype(np.uint8)


def place(picture: Picture, classes: Labels, saliency: Labels, placement: Placement) -> Example:
    """Place a picture and its labels in the frame of the input."""
    height, width = picture.shape[:2]
    factor = min(HEIGHT_PX / height, WIDTH_PX / width) * placement.scale
    rows, columns = max(1, round(height * factor)), max(1, round(width * factor))
    top, left = int((HEIGHT_PX - rows) * placement.y), int((WIDTH_PX - columns) * placement.x)
    image = np.full((HEIGHT_PX, WIDTH_PX, 3), placement.fill, np.uint8)
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    inner = (slice(top, top + rows), slice(left, left + columns))
    image[inner] = cv2.resize(picture, (columns, rows), interpolation=method)
    maps = []
    for labels in (classes, saliency):
        frame = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
        frame[inner] = cv2.resize(labels, (columns, rows), interpolation=cv2.INTER_NEAREST)
        maps.append(frame)
    if placement.is_mirrored:
        image, maps = image[:, ::-1], [map_[:, ::-1] for map_ in maps]
    return Example(
        np.ascontiguousarray(image), *(np.ascontiguousarray(m[4::8, 4::8]) for m in maps)
    )


def jittered(example: Example, rng: random.Random) -> Example:
    """Change the brightness and white balance of an example, with a probability of one half."""
    if rng.random() < 0.5:
        return example
    gain = rng.uniform(0.75, 1.25) * np.array([rng.uniform(0.9, 1.1) for _ in range(3)])
    image = np.clip(example.image * gain + rng.uniform(-20, 20), 0, 255).astype(np.uint8)
    return Example(image, example.classes, example.saliency)


def one_thread() -> onnxruntime.SessionOptions:
    """Return options for a session that uses a single thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return options
