"""Common edits of pictures that are shared online, made with Pillow."""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

Edit = Callable[[Image.Image, Image.Image], Image.Image]
"""An edit of a picture. The second argument is an unrelated picture for use as the background."""


def encode(picture: Image.Image, quality: int = 85) -> bytes:
    """Return the picture as a JPEG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def crop(picture: Image.Image, area: float, x: float, y: float) -> Image.Image:
    """Crop a picture to a share of its area, at the relative position x, y in [0, 1]."""
    width, height = (round(side * area**0.5) for side in picture.size)
    left = round((picture.width - width) * x)
    top = round((picture.height - height) * y)
    return picture.crop((left, top, left + width, top + height))


def rotate_slightly(picture: Image.Image) -> Image.Image:
    return picture.rotate(12, Image.Resampling.BICUBIC, expand=True, fillcolor="white")


def shift_hue(picture: Image.Image) -> Image.Image:
    """Rotate the hues by 120°; grayscale pictures become sepia."""
    hue, saturation, value = picture.convert("HSV").split()
    if not saturation.getbbox():
        return ImageOps.colorize(picture.convert("L"), "#201000", "#ffe8c0")
    rotated = hue.point(lambda level: (level + 85) % 256)
    return Image.merge("HSV", (rotated, saturation, value)).convert("RGB")


def increase_contrast(picture: Image.Image) -> Image.Image:
    return ImageEnhance.Contrast(ImageEnhance.Brightness(picture).enhance(1.3)).enhance(1.6)


def pixelate(picture: Image.Image) -> Image.Image:
    """Reduce the picture to square blocks, 64 along the long side."""
    small = ImageOps.contain(picture, (64, 64))
    return small.resize(picture.size, Image.Resampling.NEAREST)


def watermark(picture: Image.Image) -> Image.Image:
    """Draw semitransparent text over the whole picture."""
    layer = Image.new("RGBA", picture.size)
    draw = ImageDraw.Draw(layer)
    font = ImageFont.load_default(max(picture.width // 9, 12))
    for line in range(4):
        position = (picture.width * 0.06, picture.height * (0.05 + 0.25 * line))
        draw.text(position, "© EXAMPLE STOCK", fill=(255, 255, 255, 140), font=font)
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")


def caption(picture: Image.Image) -> Image.Image:
    """Add a white band with a line of text above and below the picture."""
    margin = picture.height // 5
    card = Image.new("RGB", (picture.width, picture.height + 2 * margin), "white")
    card.paste(picture, (0, margin))
    draw = ImageDraw.Draw(card)
    font = ImageFont.load_default(max(margin // 2, 12))
    draw.text((margin // 4, margin // 5), "WHEN YOU SEE IT", fill="black", font=font)
    draw.text((margin // 4, card.height - margin), "share if you agree", fill="black", font=font)
    return card


def jpeg_10(picture: Image.Image) -> Image.Image:
    return Image.open(io.BytesIO(encode(picture, quality=10)))


def paste(picture: Image.Image, background: Image.Image) -> Image.Image:
    """Paste the picture into an unrelated picture, at up to half of its width and height."""
    canvas = ImageOps.fit(background, (800, 600))
    part = ImageOps.contain(picture, (400, 300))
    canvas.paste(part, (800 - part.width - 60, 600 - part.height - 90))
    return canvas


def screenshot(picture: Image.Image, _background: Image.Image) -> Image.Image:
    """Show the picture in a screenshot of a phone's browser."""
    page = Image.new("RGB", (540, 960), "#f4f4f6")
    draw = ImageDraw.Draw(page)
    draw.rectangle((0, 0, 540, 84), fill="#25324a")
    draw.text(
        (20, 26), "12:45    example.org/post/7", fill="white", font=ImageFont.load_default(26)
    )
    part = ImageOps.contain(picture, (480, 480))
    top = 150
    page.paste(part, ((540 - part.width) // 2, top))
    for line in range(9):
        y = top + part.height + 40 + 30 * line
        draw.rectangle((30, y, 510 - 37 * (line % 4), y + 10), fill="#b9bcc6")
    return page


WHOLE_EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "unedited, as JPEG": lambda picture: picture,
    "half of the area": lambda picture: crop(picture, 1 / 2, 0.3, 0.7),
    "a third of the area": lambda picture: crop(picture, 1 / 3, 0.5, 0.4),
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
    "rotated by 90°": lambda picture: picture.transpose(Image.Transpose.ROTATE_90),
    "rotated by 12°": rotate_slightly,
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(max(picture.size) / 150)),
    "pixelated": pixelate,
    "other colors": shift_hue,
    "grayscale": lambda picture: ImageOps.grayscale(picture).convert("RGB"),
    "brighter, more contrast": increase_contrast,
    "stretched": lambda picture: picture.resize((picture.width * 3 // 2, picture.height)),
    "watermark": watermark,
    "caption": caption,
    "JPEG 10": jpeg_10,
}
"""Edits of the whole picture."""

PARTIAL_EDITS: dict[str, Edit] = {"pasted into another picture": paste, "screenshot": screenshot}
"""Edits after which the picture is only a part of the query."""

EDITS: dict[str, Edit] = {
    **{
        name: lambda picture, _background, edit=edit: edit(picture)  # type: ignore[misc]
        for name, edit in WHOLE_EDITS.items()
    },
    **PARTIAL_EDITS,
}
