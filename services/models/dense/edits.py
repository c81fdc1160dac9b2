"""Augmentations of the pictures that the dense descriptor learns from."""

from __future__ import annotations

import random
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.models.dense.drawings import random_word
from imagesearch_services.models.dense.pixels import Picture, crop, random_color


def resized(picture: Picture, height: int, width: int) -> Picture:
    """Resize to a height and a width, without keeping the aspect ratio."""
    interpolation = cv2.INTER_AREA if picture.shape[0] > height else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (width, height), interpolation=interpolation), np.uint8)


def reshaped(picture: Picture, rng: random.Random) -> Picture:
    """Crop, rotate with slight perspective, or add a frame, chosen at random."""
    height, width = picture.shape[:2]
    kind = rng.random()
    if kind < 0.4:
        side = np.sqrt(rng.uniform(0.3, 0.95))
        x, y = rng.uniform(0, 1 - side), rng.uniform(0, 1 - side)
        return crop(picture, (x, y, x + side, y + side))
    if kind < 0.75:
        angle, scale = rng.gauss(0, 9), rng.uniform(0.85, 1.25)
        warp = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)
        warp = np.vstack([warp, [0, 0, 1]])
        warp[2, :2] = rng.gauss(0, 0.15) / width, rng.gauss(0, 0.15) / height
        border = rng.choice([cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT])
        warped = cv2.warpPerspective(
            picture, warp, (width, height), borderMode=border, borderValue=random_color(rng)
        )
        return np.asarray(warped, np.uint8)
    top, bottom, left, right = (
        round(rng.uniform(0, 0.2) * side) for side in (height, height, width, width)
    )
    framed = cv2.copyMakeBorder(
        picture, top, bottom, left, right, cv2.BORDER_CONSTANT, value=random_color(rng)
    )
    return np.asarray(framed, np.uint8)


def overlaid(picture: Picture, rng: random.Random) -> Picture:
    """Write words or draw a disk on the picture."""
    result = picture.copy()
    height, width = result.shape[:2]
    at = (rng.randint(0, width // 2), rng.randint(height // 6, height))
    if rng.random() < 0.6:
        scale = width / rng.uniform(150, 500)
        text = " ".join(random_word(rng) for _ in range(rng.randint(1, 4)))
        thickness = max(1, round(2 * scale))
        font = cv2.FONT_HERSHEY_DUPLEX
        cv2.putText(result, text, at, font, scale, random_color(rng), thickness, cv2.LINE_AA)
    else:
        extent = round(min(height, width) * rng.uniform(0.08, 0.3))
        cv2.circle(result, at, extent // 2, random_color(rng), -1, cv2.LINE_AA)
    return result


def recorded(image: Picture, rng: random.Random) -> Picture:
    """Change colors and detail as cameras and image editors do."""
    pixels = _with_detail(_with_colors(image, rng), rng)
    result: Picture = np.clip(pixels, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        quality = [cv2.IMWRITE_JPEG_QUALITY, rng.randint(8, 90)]
        encoded = cv2.imencode(".jpg", result, quality)[1]
        result = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return result


def _with_colors(image: Picture, rng: random.Random) -> npt.NDArray[Any]:
    """Change brightness, white balance, saturation and hue, each with some probability."""
    pixels: npt.NDArray[Any] = image.astype(np.float32)
    if rng.random() < 0.6:
        gain = np.array([rng.gauss(1, 0.08) for _ in range(3)]) * rng.uniform(0.7, 1.3)
        pixels = pixels * gain.astype(np.float32) + rng.uniform(-25, 25)
    if rng.random() < 0.3:
        gray = pixels.mean(2, keepdims=True)
        pixels = gray + (pixels - gray) * rng.choice([0, 0.4, 0.7, 1.4, 1.8])
    pixels = np.clip(pixels, 0, 255)
    if rng.random() < 0.12:
        hue = cv2.cvtColor((pixels / 255).astype(np.float32), cv2.COLOR_RGB2HSV)
        hue[..., 0] = (hue[..., 0] + rng.uniform(-30, 30)) % 360
        pixels = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB) * 255
    return pixels


def _with_detail(pixels: npt.NDArray[Any], rng: random.Random) -> npt.NDArray[Any]:
    """Blur, reduce the resolution, add noise, or return the pixels unchanged, chosen at random."""
    kind = rng.random()
    height, width = pixels.shape[:2]
    if kind < 0.2:
        return cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.6, 2.4))
    if kind < 0.28:
        factor = rng.uniform(0.2, 0.6)
        small = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        interpolation = rng.choice([cv2.INTER_LINEAR, cv2.INTER_NEAREST])
        return cv2.resize(small, (width, height), interpolation=interpolation)
    if kind < 0.36:
        noise = np.random.default_rng(rng.randint(0, 2**31)).standard_normal(pixels.shape)
        pixels = pixels + noise.astype(np.float32) * rng.uniform(4, 25)
    return pixels
