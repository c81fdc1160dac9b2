"""Training pictures: scenes of several things, and singles, which show a single thing."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.models.common.pictures import read_pixels
from imagesearch_services.models.dense.edits import overlaid, recorded, reshaped, resized
from imagesearch_services.models.dense.pixels import (
    Picture,
    contrasting,
    crop,
    has_alpha,
    on_ground,
    painted,
    random_color,
    with_alpha,
)
from imagesearch_services.models.dense.things import GLYPH_KINDS, Thing

WINDOWS = 10
"""Maximum number of windows per example."""
SCENE_SIZES = ((512, 384), (384, 512), (448, 448))
"""Heights and widths of scenes, in pixels."""
SINGLE_SIZES = ((288, 288), (256, 256))
"""Heights and widths of singles, in pixels."""
KIND_WEIGHTS = {
    "photo": 1.0,
    "crop": 4.0,
    "glyph": 2.2,
    "emoji": 0.9,
    "clip_art": 1.0,
    "pattern": 1.2,
    "poster": 0.8,
    "word": 0.5,
}
"""Relative frequency of each kind of thing."""
PHOTOS_IN_MEMORY = 64
"""Maximum number of decoded photos in the cache."""
PLACE_TRIES = 8
"""Maximum number of attempts to find a free place for a thing."""

Box = tuple[float, float, float, float]
"""x_min, y_min, x_max, y_max, from 0 to 1."""


@dataclass(frozen=True)
class Example:
    image: Picture
    windows: npt.NDArray[np.float32]
    """Windows from 0 to 1, [WINDOWS, 4]; unused windows cover the whole image."""
    things: npt.NDArray[np.int32]
    """Index of the thing in each window, [WINDOWS]; -1 for unused windows."""

    @classmethod
    def of(cls, image: Picture, found: list[tuple[Box, int]]) -> Example:
        """Build an example from windows and the indices of their things."""
        windows = np.tile(np.array([0, 0, 1, 1], np.float32), (WINDOWS, 1))
        things = np.full(WINDOWS, -1, np.int32)
        for place, (window, index) in enumerate(found):
            windows[place], things[place] = window, index
        return cls(image, windows, things)


class ExampleMaker:
    """Makes examples from things; the same seed makes the same examples."""

    def __init__(self, things: list[Thing], data: Path, seed: int) -> None:
        self._things = things
        self._rng = random.Random(seed)
        self._by_kind = {
            kind: [index for index, thing in enumerate(things) if thing.kind == kind]
            for kind in KIND_WEIGHTS
        }
        self._of_photo: dict[str, list[int]] = {}
        for index, thing in enumerate(things):
            if thing.photo is not None:
                self._of_photo.setdefault(thing.photo, []).append(index)
        self._photo = lru_cache(PHOTOS_IN_MEMORY)(lambda name: read_pixels(data / name))

    def single(self, height: int, width: int) -> Example:
        """Make a single: a picture that an edited thing fills."""
        rng, index = self._rng, self._pick()
        picture = self._picture(index)
        if has_alpha(picture):
            ground = (255, 255, 255) if rng.random() < 0.5 else random_color(rng)
            if self._is_glyph(index):
                picture = painted(picture, contrasting(ground, rng))
            picture = on_ground(picture, ground, rng.uniform(0, 0.2))
        if rng.random() < 0.75:
            picture = reshaped(picture, rng)
        if rng.random() < 0.3:
            picture = overlaid(picture, rng)
        image = recorded(resized(picture, height, width), rng)
        return Example.of(image, [((0, 0, 1, 1), index)])

    def scene(self, height: int, width: int) -> Example:
        """Make a scene: a photo or a plain background with pasted things, and their windows."""
        rng = self._rng
        image, found = self._ground(height, width)
        taken: list[Box] = []
        pasted: set[int] = set()
        for _ in range(rng.choice([1, 2, 3, 3, 4, 4])):
            index = self._pick()
            box = self._paste(image, index, taken)
            if box is not None:
                taken.append(box)
                pasted.add(index)
                found += [(around(box, rng), index) for _ in range(2)]
        visible = [
            (window, index)
            for window, index in found
            if index in pasted or _covered(window, taken) < 0.2
        ]
        # The pasted things are at the end of the list, so they are kept.
        return Example.of(recorded(image, rng), visible[-WINDOWS:])

    def _pick(self) -> int:
        kind = self._rng.choices(list(KIND_WEIGHTS), list(KIND_WEIGHTS.values()))[0]
        return self._rng.choice(self._by_kind[kind])

    def _picture(self, index: int) -> Picture:
        thing = self._things[index]
        return thing.picture(None if thing.photo is None else self._photo(thing.photo))

    def _is_glyph(self, index: int) -> bool:
        return self._things[index].kind in GLYPH_KINDS

    def _ground(self, height: int, width: int) -> tuple[Picture, list[tuple[Box, int]]]:
        """Return a plain background, or a photo and the windows of the things that it contains."""
        rng = self._rng
        if rng.random() < 0.06:
            return np.full((height, width, 3), random_color(rng), np.uint8), []
        name = rng.choice(list(self._of_photo))
        photo = self._photo(name)
        # A random crop with the aspect ratio of the scene, of 65 to 100 % of the largest such crop.
        aspect = (width / photo.shape[1]) / (height / photo.shape[0])
        zoom = rng.uniform(0.65, 1)
        across, down = zoom * min(1, aspect), zoom * min(1, 1 / aspect)
        x, y = rng.uniform(0, 1 - across), rng.uniform(0, 1 - down)
        image = resized(crop(photo, (x, y, x + across, y + down)), height, width)
        found = []
        for index in self._of_photo[name]:
            x_min, y_min, x_max, y_max = self._things[index].box
            box = (
                (x_min - x) / across,
                (y_min - y) / down,
                (x_max - x) / across,
                (y_max - y) / down,
            )
            inside = [min(1.0, max(0.0, side)) for side in box]
            area = (inside[2] - inside[0]) * (inside[3] - inside[1])
            if area > 0.75 * (box[2] - box[0]) * (box[3] - box[1]):
                found.append(((inside[0], inside[1], inside[2], inside[3]), index))
        return image, found

    def _paste(self, image: Picture, index: int, taken: list[Box]) -> Box | None:
        """Paste a thing into the image, rotated and in perspective.

        Returns:
            Its bounding box, or None if no free place was found.
        """
        rng = self._rng
        height, width = image.shape[:2]
        picture = self._picture(index)
        extent = np.sqrt(height * width) * rng.uniform(0.19, 0.55)
        aspect = np.sqrt(picture.shape[1] / picture.shape[0]) * rng.uniform(0.9, 1.1)
        half_x, half_y = extent * aspect / 2, extent / aspect / 2
        for _ in range(PLACE_TRIES):
            x, y = rng.uniform(half_x, width - half_x), rng.uniform(half_y, height - half_y)
            box = (
                (x - half_x) / width,
                (y - half_y) / height,
                (x + half_x) / width,
                (y + half_y) / height,
            )
            if _covered(box, taken) < 0.1:
                break
        else:
            return None
        patch = image[
            int(max(0, y - half_y)) : int(y + half_y) + 1,
            int(max(0, x - half_x)) : int(x + half_x) + 1,
        ]
        picture = self._prepared(picture, patch, is_glyph=self._is_glyph(index))
        angle = np.deg2rad(rng.uniform(-180, 180) if rng.random() < 0.12 else rng.gauss(0, 20))
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32) * (half_x, half_y)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        jitter = np.array([[rng.gauss(0, 0.05) * extent for _ in range(2)] for _ in range(4)])
        corners = (corners @ turn.T + jitter + (x, y)).astype(np.float32)
        factor = extent / np.sqrt(picture.shape[0] * picture.shape[1])
        if factor < 0.7:
            size = [max(8, round(side * factor)) for side in picture.shape[1::-1]]
            small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            picture = np.asarray(small, np.uint8)
        self._blend(image, picture, corners)
        low, high = corners.min(0), corners.max(0)
        return (
            max(0.0, low[0] / width),
            max(0.0, low[1] / height),
            min(1.0, high[0] / width),
            min(1.0, high[1] / height),
        )

    def _prepared(self, picture: Picture, patch: Picture, *, is_glyph: bool) -> Picture:
        """Return RGBA to paste; glyphs are recolored, and drawings may get a background."""
        rng = self._rng
        if has_alpha(picture):
            if is_glyph:
                picture = painted(picture, contrasting(patch.mean((0, 1)), rng))
            if rng.random() < (0.3 if is_glyph else 0.4):
                ground = (255, 255, 255) if rng.random() < 0.5 else random_color(rng)
                if is_glyph:
                    picture = painted(picture, contrasting(ground, rng))
                picture = on_ground(picture, ground, rng.uniform(0.03, 0.15))
        return with_alpha(picture)

    def _blend(self, image: Picture, picture: Picture, corners: npt.NDArray[np.float32]) -> None:
        """Blend RGBA into the image at four corners, recolored and sometimes translucent."""
        rng = self._rng
        height, width = image.shape[:2]
        rows, columns = picture.shape[:2]
        source = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], np.float32)
        warp = cv2.getPerspectiveTransform(source, corners)
        premultiplied = picture.astype(np.float32)
        premultiplied[..., :3] *= premultiplied[..., 3:] / 255
        if rng.random() < 0.5:
            gains = np.array([rng.uniform(0.75, 1.25) for _ in range(3)])
            premultiplied[..., :3] *= gains * rng.uniform(0.8, 1.2)
        placed = cv2.warpPerspective(premultiplied, warp, (width, height))
        alpha = placed[..., 3:] / 255
        opacity = alpha * (1 if rng.random() < 0.8 else rng.uniform(0.7, 1))
        colors = placed[..., :3] * (opacity / np.maximum(alpha, 1e-3))
        image[:] = np.clip(colors + image * (1 - opacity), 0, 255)


def around(box: Box, rng: random.Random) -> Box:
    """Return a loose window around a box, randomly scaled and shifted."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    scale = rng.uniform(0.85, 1.5)
    width, height = (box[2] - box[0]) * scale, (box[3] - box[1]) * scale
    width, height = width * rng.uniform(0.87, 1.15), height * rng.uniform(0.87, 1.15)
    x, y = x + rng.uniform(-0.13, 0.13) * width, y + rng.uniform(-0.13, 0.13) * height
    return (
        max(0.0, x - width / 2),
        max(0.0, y - height / 2),
        min(1.0, x + width / 2),
        min(1.0, y + height / 2),
    )


def _covered(box: Box, others: list[Box]) -> float:
    """Return an upper bound of the share of a box that other boxes cover."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    shared = [
        max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
        * max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
        for other in others
    ]
    return sum(shared) / area
