"""Pictures to learn from: scenes with known things somewhere in them, and things that fill one."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.models.dense.bank import (
    GLYPH_KINDS,
    Picture,
    Thing,
    colour,
    contrasting,
    cut,
    decode,
    on_ground,
    painted,
    read,
    word,
)

WINDOWS = 10
SCENE_SIZES = ((512, 384), (384, 512), (448, 448))
SINGLE_SIZES = ((288, 288), (256, 256))
KINDS = {
    "photo": 1.0, "crop": 4.0, "glyph": 2.2, "emoji": 0.9, "clip_art": 1.0, "pattern": 1.2,
    "poster": 0.8, "word": 0.5,
}  # fmt: skip
"""How often each kind of thing is shown."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Example:
    image: Picture
    windows: npt.NDArray[np.float32]
    """[WINDOWS, 4], from 0 to 1; unused ones are the whole."""
    things: npt.NDArray[np.int32]
    """What each shows, [WINDOWS]; -1: unused."""


class Maker:
    """Makes examples from things, the same again from the same seed."""

    def __init__(self, things: list[Thing], data: Path, seed: int) -> None:
        self.things, self.data = things, data
        self.chance = random.Random(seed)
        self.by_kind = {
            kind: [i for i, thing in enumerate(things) if thing.kind == kind] for kind in KINDS
        }
        self.of_photo: dict[str, list[int]] = {}
        for index, thing in enumerate(things):
            if thing.photo is not None:
                self.of_photo.setdefault(thing.photo, []).append(index)
        self.photo = lru_cache(64)(lambda name: read(data / name))

    def pick(self) -> int:
        kind = self.chance.choices(list(KINDS), list(KINDS.values()))[0]
        return self.chance.choice(self.by_kind[kind])

    def picture(self, index: int) -> Picture:
        thing = self.things[index]
        if thing.photo is not None:
            return cut(self.photo(thing.photo), thing.box)
        assert thing.drawn is not None  # noqa: S101
        return decode(thing.drawn)

    def single(self, height: int, width: int) -> Example:
        """One thing, edited as copies are."""
        chance, index = self.chance, self.pick()
        picture = self.picture(index)
        if picture.shape[2] == 4:
            ground = (255, 255, 255) if chance.random() < 0.5 else colour(chance)
            if self.things[index].kind in GLYPH_KINDS:
                picture = painted(picture, contrasting(ground, chance))
            picture = on_ground(picture, ground, chance.uniform(0, 0.2))
        if chance.random() < 0.75:
            picture = reshaped(picture, chance)
        if chance.random() < 0.3:
            picture = overlaid(picture, chance)
        image = recorded(_resized(picture, height, width), chance)
        windows = np.tile(np.array([0, 0, 1, 1], np.float32), (WINDOWS, 1))
        things = np.full(WINDOWS, -1, np.int32)
        things[0] = index
        return Example(image, windows, things)

    def scene(self, height: int, width: int) -> Example:
        """Some things on a photo or on plain ground, with windows around them."""
        chance = self.chance
        image, found = self._ground(height, width)
        taken: list[Box] = []
        for _ in range(chance.choice([1, 2, 3, 3, 4, 4])):
            index = self.pick()
            box = self._paste(image, index, taken)
            if box is not None:
                taken.append(box)
                found += [(around(box, chance), index) for _ in range(2)]
        found = [
            (window, index)
            for window, index in found
            if index in self.by_kind_pasted or _covered(window, taken) < 0.2
        ][-WINDOWS:]  # pasted ones come last
        windows = np.tile(np.array([0, 0, 1, 1], np.float32), (WINDOWS, 1))
        things = np.full(WINDOWS, -1, np.int32)
        for place, (window, index) in enumerate(found):
            windows[place], things[place] = window, index
        return Example(recorded(image, chance), windows, things)

    def _ground(self, height: int, width: int) -> tuple[Picture, list[tuple[Box, int]]]:
        """A photo, of which some parts are known things, or a plain colour."""
        chance = self.chance
        self.by_kind_pasted: set[int] = set()
        if chance.random() < 0.06:
            return np.full((height, width, 3), colour(chance), np.uint8), []
        name = chance.choice(list(self.of_photo))
        photo = self.photo(name)
        # Of the photo, the largest part with the frame's aspect, or a smaller one.
        aspect = (width / photo.shape[1]) / (height / photo.shape[0])
        zoom = chance.uniform(0.65, 1)
        across, down = zoom * min(1, aspect), zoom * min(1, 1 / aspect)
        x, y = chance.uniform(0, 1 - across), chance.uniform(0, 1 - down)
        image = _resized(cut(photo, (x, y, x + across, y + down)), height, width)
        found = []
        for index in self.of_photo[name]:
            x_min, y_min, x_max, y_max = self.things[index].box
            box = ((x_min - x) / across, (y_min - y) / down,
                   (x_max - x) / across, (y_max - y) / down)  # fmt: skip
            inside = [min(1.0, max(0.0, side)) for side in box]
            area = (inside[2] - inside[0]) * (inside[3] - inside[1])
            if area > 0.75 * (box[2] - box[0]) * (box[3] - box[1]):
                found.append(((inside[0], inside[1], inside[2], inside[3]), index))
        return image, found

    def _paste(self, image: Picture, index: int, taken: list[Box]) -> Box | None:
        """Puts a thing into the image, turned and in perspective; its box, or None: no room."""
        chance = self.chance
        height, width = image.shape[:2]
        picture = self.picture(index)
        is_glyph = self.things[index].kind in GLYPH_KINDS
        extent = np.sqrt(height * width) * chance.uniform(0.19, 0.55)
        aspect = np.sqrt(picture.shape[1] / picture.shape[0]) * chance.uniform(0.9, 1.1)
        half_x, half_y = extent * aspect / 2, extent / aspect / 2
        for _ in range(8):
            x, y = chance.uniform(half_x, width - half_x), chance.uniform(half_y, height - half_y)
            box = ((x - half_x) / width, (y - half_y) / height,
                   (x + half_x) / width, (y + half_y) / height)  # fmt: skip
            if _covered(box, taken) < 0.1:
                break
        else:
            return None
        if picture.shape[2] == 4:
            patch = image[int(max(0, y - half_y)) : int(y + half_y) + 1,
                          int(max(0, x - half_x)) : int(x + half_x) + 1]  # fmt: skip
            if is_glyph:
                picture = painted(picture, contrasting(patch.mean((0, 1)), chance))
            if chance.random() < (0.3 if is_glyph else 0.4):
                ground = (255, 255, 255) if chance.random() < 0.5 else colour(chance)
                if is_glyph:
                    picture = painted(picture, contrasting(ground, chance))
                picture = on_ground(picture, ground, chance.uniform(0.03, 0.15))
        if picture.shape[2] == 3:
            picture = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
        angle = np.deg2rad(
            chance.uniform(-180, 180) if chance.random() < 0.12 else chance.gauss(0, 20)
        )
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32) * (half_x, half_y)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shaken = np.array([[chance.gauss(0, 0.05) * extent for _ in range(2)] for _ in range(4)])
        corners = (corners @ turn.T + shaken + (x, y)).astype(np.float32)
        rows, columns = picture.shape[:2]
        factor = extent / np.sqrt(rows * columns)
        if factor < 0.7:
            size = (max(8, round(columns * factor)), max(8, round(rows * factor)))
            small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            picture = np.asarray(small, np.uint8)
            rows, columns = picture.shape[:2]
        source = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], np.float32)
        warp = cv2.getPerspectiveTransform(source, corners)
        premultiplied = picture.astype(np.float32)
        premultiplied[..., :3] *= premultiplied[..., 3:] / 255
        if chance.random() < 0.5:
            gain = np.array([chance.uniform(0.75, 1.25) for _ in range(3)]) * chance.uniform(
                0.8, 1.2
            )
            premultiplied[..., :3] *= gain
        placed = cv2.warpPerspective(premultiplied, warp, (width, height))
        opacity = placed[..., 3:] / 255 * (1 if chance.random() < 0.8 else chance.uniform(0.7, 1))
        image[:] = np.clip(placed[..., :3] * (opacity / np.maximum(placed[..., 3:] / 255, 1e-3))
                           + image * (1 - opacity), 0, 255)  # fmt: skip
        self.by_kind_pasted.add(index)
        low, high = corners.min(0), corners.max(0)
        return (max(0.0, low[0] / width), max(0.0, low[1] / height),
                min(1.0, high[0] / width), min(1.0, high[1] / height))  # fmt: skip


def around(box: Box, chance: random.Random) -> Box:
    """A window that shows the box, not quite: larger or smaller, to the side."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    scale = chance.uniform(0.85, 1.5)
    width, height = (box[2] - box[0]) * scale, (box[3] - box[1]) * scale
    width, height = width * chance.uniform(0.87, 1.15), height * chance.uniform(0.87, 1.15)
    x, y = x + chance.uniform(-0.13, 0.13) * width, y + chance.uniform(-0.13, 0.13) * height
    return (max(0.0, x - width / 2), max(0.0, y - height / 2),
            min(1.0, x + width / 2), min(1.0, y + height / 2))  # fmt: skip


def _covered(box: Box, others: list[Box]) -> float:
    """The share of the box that others cover, at most."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    shared = [
        max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
        * max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
        for other in others
    ]
    return sum(shared) / area


def _resized(picture: Picture, height: int, width: int) -> Picture:
    interpolation = cv2.INTER_AREA if picture.shape[0] > height else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (width, height), interpolation=interpolation), np.uint8)


def reshaped(picture: Picture, chance: random.Random) -> Picture:
    """Cropped, turned, seen from the side, or put on a frame."""
    height, width = picture.shape[:2]
    kind = chance.random()
    if kind < 0.4:
        side = np.sqrt(chance.uniform(0.3, 0.95))
        x, y = chance.uniform(0, 1 - side), chance.uniform(0, 1 - side)
        return cut(picture, (x, y, x + side, y + side))
    if kind < 0.75:
        angle, scale = chance.gauss(0, 9), chance.uniform(0.85, 1.25)
        warp = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)
        warp = np.vstack([warp, [0, 0, 1]])
        warp[2, :2] = chance.gauss(0, 0.15) / width, chance.gauss(0, 0.15) / height
        border = chance.choice([cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT])
        warped = cv2.warpPerspective(
            picture, warp, (width, height), borderMode=border, borderValue=colour(chance)
        )
        return np.asarray(warped, np.uint8)
    top, bottom, left, right = (
        round(chance.uniform(0, 0.2) * side) for side in (height, height, width, width)
    )
    framed = cv2.copyMakeBorder(
        picture, top, bottom, left, right, cv2.BORDER_CONSTANT, value=colour(chance)
    )
    return np.asarray(framed, np.uint8)


def overlaid(picture: Picture, chance: random.Random) -> Picture:
    """With words or a shape on it."""
    found = picture.copy()
    height, width = found.shape[:2]
    at = (chance.randint(0, width // 2), chance.randint(height // 6, height))
    if chance.random() < 0.6:
        scale = width / chance.uniform(150, 500)
        text = " ".join(word(chance) for _ in range(chance.randint(1, 4)))
        cv2.putText(found, text, at, cv2.FONT_HERSHEY_DUPLEX, scale, colour(chance),
                    max(1, round(2 * scale)), cv2.LINE_AA)  # fmt: skip
    else:
        extent = round(min(height, width) * chance.uniform(0.08, 0.3))
        cv2.circle(found, at, extent // 2, colour(chance), -1, cv2.LINE_AA)
    return found


def recorded(image: Picture, chance: random.Random) -> Picture:
    """As cameras and programs change colours and detail."""
    pixels: npt.NDArray[Any] = image.astype(np.float32)
    if chance.random() < 0.6:
        gain = np.array([chance.gauss(1, 0.08) for _ in range(3)]) * chance.uniform(0.7, 1.3)
        pixels = pixels * gain.astype(np.float32) + chance.uniform(-25, 25)
    if chance.random() < 0.3:
        grey = pixels.mean(2, keepdims=True)
        pixels = grey + (pixels - grey) * chance.choice([0, 0.4, 0.7, 1.4, 1.8])
    pixels = np.clip(pixels, 0, 255)
    if chance.random() < 0.12:
        hue = cv2.cvtColor((pixels / 255).astype(np.float32), cv2.COLOR_RGB2HSV)
        hue[..., 0] = (hue[..., 0] + chance.uniform(-30, 30)) % 360
        pixels = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB) * 255
    kind = chance.random()
    height, width = image.shape[:2]
    if kind < 0.2:
        pixels = cv2.GaussianBlur(pixels, (0, 0), chance.uniform(0.6, 2.4))
    elif kind < 0.28:
        factor = chance.uniform(0.2, 0.6)
        small = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        up = chance.choice([cv2.INTER_LINEAR, cv2.INTER_NEAREST])
        pixels = cv2.resize(small, (width, height), interpolation=up)
    elif kind < 0.36:
        noise = np.random.default_rng(chance.randint(0, 2**31)).standard_normal(pixels.shape)
        pixels = pixels + noise.astype(np.float32) * chance.uniform(4, 25)
    found = np.clip(pixels, 0, 255).astype(np.uint8)
    if chance.random() < 0.5:
        quality = [cv2.IMWRITE_JPEG_QUALITY, chance.randint(8, 90)]
        encoded = cv2.imencode(".jpg", found, quality)[1]
        found = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return found
