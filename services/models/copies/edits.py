"""Edits of whole pictures, by name; the same seed gives the same edit.

Made with AugLy (Papakipos and Bitton, "AugLy: Data Augmentations for Adversarial Robustness",
CVPRW 2022) where it has the edit, else with Pillow and OpenCV.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from augly import image as augly
from augly.utils import SMILEY_EMOJI_DIR
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

Edit = Callable[[Image.Image, random.Random], Image.Image]

WORDS = (
    *("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "reads", "all"),
    *("about", "pictures", "found", "on", "the", "web", "today"),
)

CHANGED_FACTORS = (0.55, 0.7, 1.4, 1.7)
"""Factors of brightness and contrast that change a picture visibly."""


def crop_of(area: float) -> Edit:
    """Return an edit that crops a random window with a share of the area, keeping the aspect."""

    def crop(image: Image.Image, rng: random.Random) -> Image.Image:
        side = math.sqrt(area)
        x, y = rng.uniform(0, 1 - side), rng.uniform(0, 1 - side)
        return _augly("crop", image, x1=x, y1=y, x2=x + side, y2=y + side)

    return crop


def rotated_cropped(image: Image.Image, rng: random.Random) -> Image.Image:
    return _augly("rotate", image, degrees=_angle(rng))


def rotated_whole(image: Image.Image, rng: random.Random) -> Image.Image:
    """Rotate slightly, with black, white or gray corners."""
    fill = rng.choice([(0, 0, 0), (255, 255, 255), (128, 128, 128)])
    return image.rotate(_angle(rng), Image.Resampling.BICUBIC, expand=True, fillcolor=fill)


def turned(image: Image.Image, rng: random.Random) -> Image.Image:
    quarters = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
    return image.transpose(rng.choice(quarters))


def blurred(image: Image.Image, rng: random.Random) -> Image.Image:
    return _augly("blur", image, radius=rng.uniform(0.006, 0.015) * max(image.size))


def motion_blurred(image: Image.Image, rng: random.Random) -> Image.Image:
    length = max(5, round(rng.uniform(0.02, 0.05) * max(image.size)))
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1.0
    turn = cv2.getRotationMatrix2D(((length - 1) / 2, (length - 1) / 2), rng.uniform(0, 180), 1.0)
    kernel = np.asarray(cv2.warpAffine(kernel, turn, (length, length)), np.float32)
    blurry = cv2.filter2D(
        np.asarray(image), -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE
    )
    return Image.fromarray(blurry)


def perspective(image: Image.Image, rng: random.Random) -> Image.Image:
    """Move each corner inwards by up to a fifth of its sides, like a photo taken at an angle."""
    width, height = image.size
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    inwards = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)], np.float32)
    shares = np.array([[rng.uniform(0, 0.2) for _ in range(2)] for _ in range(4)], np.float32)
    moved = corners + inwards * shares * np.array([width, height], np.float32)
    matrix = cv2.getPerspectiveTransform(corners, moved)
    border = rng.choice([(0, 0, 0), (255, 255, 255), (128, 128, 128)])
    return Image.fromarray(
        cv2.warpPerspective(np.asarray(image), matrix, (width, height), borderValue=border)
    )


def warped(image: Image.Image, rng: random.Random) -> Image.Image:
    """Distort along two waves, like a photo of a page that is not flat."""
    width, height = image.size
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    reach = rng.uniform(0.015, 0.03) * max(image.size)
    phases = [rng.uniform(0, 2 * math.pi) for _ in range(2)]
    periods = [rng.uniform(0.5, 1.2) for _ in range(2)]
    bent_x = x + np.float32(reach) * np.sin(2 * np.pi * y / (height * periods[0]) + phases[0])
    bent_y = y + np.float32(reach) * np.sin(2 * np.pi * x / (width * periods[1]) + phases[1])
    pixels = cv2.remap(
        np.asarray(image),
        bent_x.astype(np.float32),
        bent_y.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )
    return Image.fromarray(pixels)


def aspect(image: Image.Image, rng: random.Random) -> Image.Image:
    return _augly(
        "change_aspect_ratio",
        image,
        ratio=image.width / image.height * rng.choice([0.5, 0.65, 1.5, 2.0]),
    )


def brightness_contrast(image: Image.Image, rng: random.Random) -> Image.Image:
    brighter = _augly("brightness", image, factor=rng.choice(CHANGED_FACTORS))
    return _augly("contrast", brighter, factor=rng.choice(CHANGED_FACTORS))


def saturation_hue(image: Image.Image, rng: random.Random) -> Image.Image:
    richer = _augly("saturation", image, factor=rng.choice([0.3, 0.5, 1.8, 2.5]))
    hsv = np.array(richer.convert("HSV"))
    hsv[..., 0] += np.uint8(rng.choice([20, 40, 215, 235]))  # of 256, wrapping around
    return Image.fromarray(hsv, "HSV").convert("RGB")


def grayscale(image: Image.Image, rng: random.Random) -> Image.Image:
    return _augly("grayscale", image, mode=rng.choice(["luminosity", "average"]))


def recolored(image: Image.Image, rng: random.Random) -> Image.Image:
    """Apply a color filter: sepia, duotone or a strong tint."""
    gray = image.convert("L")
    match rng.choice(["sepia", "duotone", "tint"]):
        case "sepia":
            return ImageOps.colorize(gray, (30, 16, 4), (255, 240, 200), (150, 110, 70))
        case "duotone":
            dark, light = rng.choice(
                [((20, 20, 90), (255, 220, 120)), ((70, 0, 60), (160, 255, 230))]
            )
            return ImageOps.colorize(gray, dark, light)
        case _:
            tint = rng.choice([(255, 120, 40), (40, 120, 255), (60, 200, 90), (230, 60, 160)])
            return Image.blend(image, Image.new("RGB", image.size, tint), rng.uniform(0.25, 0.4))


def noisy(image: Image.Image, rng: random.Random) -> Image.Image:
    return _augly("random_noise", image, var=rng.uniform(0.01, 0.03), seed=rng.randrange(2**31))


def with_text(image: Image.Image, rng: random.Random) -> Image.Image:
    """Write two or three lines of text across the picture."""
    for _ in range(rng.randint(2, 3)):
        image = _augly(
            "overlay_text",
            image,
            text=[rng.randrange(100) for _ in range(rng.randint(6, 12))],
            font_size=rng.uniform(0.08, 0.16),
            opacity=rng.uniform(0.8, 1.0),
            color=(rng.randrange(256), rng.randrange(256), rng.randrange(256)),
            x_pos=rng.uniform(0, 0.3),
            y_pos=rng.uniform(0, 0.8),
        )
    return image


def with_emoji(image: Image.Image, rng: random.Random) -> Image.Image:
    faces = sorted(Path(SMILEY_EMOJI_DIR).glob("*.png"))
    for _ in range(rng.randint(1, 3)):
        size = rng.uniform(0.15, 0.4)
        image = _augly(
            "overlay_emoji",
            image,
            emoji_path=str(rng.choice(faces)),
            emoji_size=size,
            x_pos=rng.uniform(0, 1 - size),
            y_pos=rng.uniform(0, 1 - size),
        )
    return image


def watermarked(image: Image.Image, rng: random.Random) -> Image.Image:
    """Repeat a translucent mark in slanted rows."""
    width, height = image.size
    mark = "© " + " ".join(rng.choices(WORDS, k=2))
    size_px = max(10, round(rng.uniform(0.03, 0.07) * max(image.size)))
    font = ImageFont.load_default(size=size_px)
    side = round(math.hypot(width, height))
    layer = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(layer)
    step_x, step_y = round(draw.textlength(mark, font=font) * 1.3), size_px * 3
    level = round(255 * rng.uniform(0.3, 0.55))
    for row, y in enumerate(range(0, side, step_y)):
        for x in range(-(row % 2) * step_x // 2, side, step_x):
            draw.text((x, y), mark, fill=level, font=font)
    layer = layer.rotate(rng.uniform(15, 45))
    left, top = (side - width) // 2, (side - height) // 2
    mask = layer.crop((left, top, left + width, top + height))
    color = rng.choice([(255, 255, 255), (0, 0, 0), (200, 30, 30)])
    return Image.composite(Image.new("RGB", image.size, color), image, mask)


def jpeg_10(image: Image.Image, _rng: random.Random) -> Image.Image:
    return _augly("encoding_quality", image, quality=10)


def pixelated(image: Image.Image, rng: random.Random) -> Image.Image:
    """Reduce the resolution to 10 to 20 %, with smooth (AugLy) or blocky upsampling."""
    ratio = rng.uniform(0.1, 0.2)
    if rng.random() < 0.5:
        return _augly("pixelization", image, ratio=ratio)
    size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
    small = image.resize(size, Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.NEAREST)


def framed(image: Image.Image, rng: random.Random) -> Image.Image:
    color = rng.choice([(0, 0, 0), (255, 255, 255), (190, 160, 110), (40, 70, 160)])
    if rng.random() < 0.3:
        return _augly("pad_square", image, color=color)
    share = rng.uniform(0.05, 0.15)
    return _augly("pad", image, w_factor=share, h_factor=share, color=color)


def captioned(image: Image.Image, rng: random.Random) -> Image.Image:
    """Add a white band with a caption above the picture, like a meme."""
    band_px = max(30, round(rng.uniform(0.15, 0.3) * image.height))
    canvas = Image.new("RGB", (image.width, image.height + band_px), (255, 255, 255))
    canvas.paste(image, (0, band_px))
    text = " ".join(rng.choices(WORDS, k=rng.randint(2, 4))).upper()
    font = ImageFont.load_default(size=0.4 * band_px)
    fitting = min(1.0, 0.95 * image.width / font.getlength(text))
    ImageDraw.Draw(canvas).text(
        (image.width / 2, band_px / 2),
        text,
        fill=(0, 0, 0),
        font=ImageFont.load_default(size=0.4 * band_px * fitting),
        anchor="mm",
    )
    return canvas


def combined(image: Image.Image, rng: random.Random) -> Image.Image:
    """Crop to 60 % of the area, and flip, recolor, overlay and compress."""
    image = crop_of(0.6)(image, rng)
    if rng.random() < 0.5:
        image = _augly("hflip", image)
    image = ImageEnhance.Color(image).enhance(rng.uniform(0.4, 1.8))
    image = _augly("brightness", image, factor=rng.choice([0.75, 1.3]))
    image = with_emoji(image, rng) if rng.random() < 0.5 else with_text(image, rng)
    return _augly("encoding_quality", image, quality=rng.randint(25, 60))


def _augly(name: str, image: Image.Image, **settings: Any) -> Image.Image:
    """Apply a function of AugLy."""
    edited: Image.Image = getattr(augly, name)(image, **settings)
    return edited.convert("RGB")


def _angle(rng: random.Random) -> float:
    return rng.choice([-1, 1]) * rng.uniform(5, 25)


EDITS: Mapping[str, Edit] = {
    "crop_80": crop_of(0.8),
    "crop_50": crop_of(0.5),
    "crop_20": crop_of(0.2),
    "flip_horizontal": lambda image, _: _augly("hflip", image),
    "flip_vertical": lambda image, _: _augly("vflip", image),
    "rotate_small_cropped": rotated_cropped,
    "rotate_small_whole": rotated_whole,
    "rotate_90_180_270": turned,
    "blur": blurred,
    "motion_blur": motion_blurred,
    "perspective": perspective,
    "warp": warped,
    "aspect": aspect,
    "brightness_contrast": brightness_contrast,
    "saturation_hue": saturation_hue,
    "greyscale": grayscale,
    "colour_filter": recolored,
    "noise": noisy,
    "text": with_text,
    "emoji": with_emoji,
    "watermark": watermarked,
    "jpeg_10": jpeg_10,
    "pixelation": pixelated,
    "frame": framed,
    "caption": captioned,
    "combination": combined,
}
"""Edits by name, from RGB to RGB.

The names seed the randomness of the edits, so their spelling must not change.
"""
