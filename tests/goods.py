"""Drawn products on a plain background, the same on every machine."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

SIZE = (480, 360)
BOX = (150, 70, 330, 310)
"""Bounding box of the product, in pixels."""
RED, BLUE, GREEN = "#c01c28", "#2352be", "#328c3c"


def carton(color: str, label: str, *, background: str = "#ffffff") -> Image.Image:
    """Draw a carton with a printed label on a plain background."""
    picture = Image.new("RGB", SIZE, background)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((BOX[0], BOX[1], BOX[2] - 1, BOX[3] - 1), fill=color)
    draw.text((BOX[0] + 24, BOX[1] + 90), label, fill="#f4f0e0", font=ImageFont.load_default(40))
    for row in range(5):
        y = BOX[1] + 160 + 12 * row
        draw.line((BOX[0] + 24, y, BOX[2] - 24 - 9 * row, y), fill="#f4f0e0", width=3)
    return picture


def shirt(color: str) -> Image.Image:
    """Draw a t-shirt, laid flat on a plain background."""
    picture = Image.new("RGB", SIZE, "#ffffff")
    draw = ImageDraw.Draw(picture)
    right = [(295, 50), (370, 110), (335, 155), (305, 132), (305, 320)]
    left = [(480 - x, y) for x, y in reversed(right)]
    draw.polygon([(185, 50), (215, 62), (265, 62), *right, *left], fill=color)
    draw.ellipse((212, 40, 268, 78), fill="#ffffff")
    return picture


def blank_picture() -> Image.Image:
    """Draw a plain picture without a product."""
    return Image.new("RGB", SIZE, "#9a9a9a")
