"""Draws the overlay of two aligned pictures, between both pictures."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from imagesearch_services.embedding.comparison.alignment import Aligned
from imagesearch_services.embedding.comparison.overlap import warped
from imagesearch_services.embedding.comparison.view import Floats, Mask, Pixels, View, grey_of
from imagesearch_services.embedding.features import geometric_check
from imagesearch_services.embedding.features.geometric_check import Matrix, Points

Color = tuple[int, int, int]

PANEL_PX = 420
"""Long side of each panel, in pixels; smaller pictures are enlarged to it."""
GAP_PX = 16
"""Space around each panel, in pixels."""
CAPTION_PX = 30
"""Height of the captions, in pixels."""
LINE_PX = 3
"""Width of outlines, in pixels."""
BACKGROUND = (255, 255, 255)
INK = (40, 40, 40)
FIRST_COLOR = (214, 90, 0)
"""Orange: the outline of the first picture, and pixels that are darker in it."""
SECOND_COLOR = (0, 104, 190)
"""Blue: the outline of the second picture, and pixels that are darker in it. Color-blind people can
distinguish orange and blue."""
FADE = 0.55
"""Opacity of the white over parts that only one picture shows."""


def draw_overlay(first: View, second: View, aligned: Aligned | None) -> bytes:
    """Draw three panels: the first picture, the overlay of both, and the second picture.

    The overlay is grey where both agree and orange or blue where they differ. An outline has the
    color of the picture that it encloses. Without a credible alignment there is no overlay.

    Returns:
        A PNG file.
    """
    if aligned is None or not aligned.is_credible:
        panels = [(_panel(first.pixels), "first"), (_panel(second.pixels), "second")]
    else:
        back = np.asarray(np.linalg.inv(aligned.matrix), np.float64)
        panels = [
            (_outlined(first, second, back, SECOND_COLOR), "first"),
            (_panel(_overlaid(first, second, aligned)), "aligned"),
            (_outlined(second, first, aligned.matrix, FIRST_COLOR), "second"),
        ]
    file = io.BytesIO()
    _side_by_side(panels).save(file, "PNG", compress_level=3)
    return file.getvalue()


def _overlaid(first: View, second: View, aligned: Aligned) -> Pixels:
    """Draw both pictures in the frame of the picture that shows more."""
    if aligned.shown_of_first < aligned.shown_of_second:
        base, other, matrix = first, second, np.linalg.inv(aligned.matrix)
    else:
        base, other, matrix = second, first, aligned.matrix
    factor = PANEL_PX / max(base.size)
    size = (max(1, round(base.size[0] * factor)), max(1, round(base.size[1] * factor)))
    scale = np.diag([size[0] / base.size[0], size[1] / base.size[1], 1.0])
    background, _ = warped(base.pixels, scale, size)
    foreground, mask = warped(other.pixels, scale @ matrix, size)
    if base is first:
        pixels_first, pixels_second = background, foreground
    else:
        pixels_first, pixels_second = foreground, background
    grey_first = grey_of(pixels_first).astype(np.float32)
    grey_second = grey_of(pixels_second).astype(np.float32)
    faded = background * (1 - FADE) + 255 * FADE
    blended = _two_inks(_with_levels_of(grey_first, grey_second, mask), grey_second)
    drawn = Image.fromarray(np.where(mask[..., None], blended, faded).astype(np.uint8))
    outline = geometric_check.transform(scale @ matrix, geometric_check.corners(other.size))
    _draw_outline(drawn, outline, SECOND_COLOR if base is first else FIRST_COLOR)
    return np.asarray(drawn)


def _with_levels_of(grey: Floats, other: Floats, mask: Mask) -> Floats:
    """Return grey levels with the brightness and contrast of another picture inside the mask."""
    if not mask.any():
        return grey
    spread, spread_other = float(grey[mask].std()), float(other[mask].std())
    gain = np.clip(spread_other / spread, 0.25, 4.0) if spread > 1 else 1.0
    adapted = (grey - grey[mask].mean()) * gain + other[mask].mean()
    return np.asarray(np.clip(adapted, 0, 255), np.float32)


def _two_inks(first: Floats, second: Floats) -> Pixels:
    """Blend two pictures of grey levels [height, width]: grey where equal, colored where not."""
    darker = np.minimum(first, second)[..., None]
    difference = np.clip((first - second)[..., None] / 255, -1, 1)
    # A pixel takes the ink of the picture in which it is darker, more ink for a larger difference.
    lighter = np.maximum(first, second)[..., None]
    ink = np.where(difference > 0, SECOND_COLOR, FIRST_COLOR)
    strength = np.sqrt(np.abs(difference))
    mixed = (1 - strength) * (0.5 * darker + 0.5 * lighter) + strength * ink
    return np.asarray(mixed, np.uint8)


def _outlined(view: View, other: View, matrix: Matrix, color: Color) -> Image.Image:
    """Draw a picture with the outline of the other picture in it."""
    panel = _panel(view.pixels)
    scale = np.diag([panel.width / view.size[0], panel.height / view.size[1], 1.0])
    _draw_outline(
        panel, geometric_check.transform(scale @ matrix, geometric_check.corners(other.size)), color
    )
    return panel


def _draw_outline(image: Image.Image, outline: Points, color: Color) -> None:
    """Draw an outline with a white border, which is visible on any background."""
    max_px = 8 * PANEL_PX  # bounds the coordinates that Pillow has to draw
    points = [(float(x), float(y)) for x, y in np.clip(outline, -max_px, max_px)]
    pen = ImageDraw.Draw(image)
    for width, ink in ((LINE_PX + 2, BACKGROUND), (LINE_PX, color)):
        pen.line([*points, points[0], points[1]], fill=ink, width=width, joint="curve")


def _panel(pixels: Pixels | Image.Image) -> Image.Image:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    factor = PANEL_PX / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.copy() if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def _side_by_side(panels: list[tuple[Image.Image, str]]) -> Image.Image:
    """Draw panels next to each other with a caption under each."""
    font = ImageFont.load_default(size=18)
    cell_px = max(80, *(panel.width for panel, _ in panels))
    height = max(panel.height for panel, _ in panels)
    width = len(panels) * cell_px + (len(panels) + 1) * GAP_PX
    canvas = Image.new("RGB", (width, height + CAPTION_PX + 2 * GAP_PX), BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    for column, (panel, caption) in enumerate(panels):
        left = GAP_PX + column * (cell_px + GAP_PX)
        corner = (left + (cell_px - panel.width) // 2, GAP_PX + (height - panel.height) // 2)
        canvas.paste(panel, corner)
        middle = (left + cell_px / 2, height + GAP_PX + CAPTION_PX / 2)
        pen.text(middle, caption, fill=INK, font=font, anchor="mm")
    return canvas
