"""Two pictures laid over each other, for people to look at."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from imagesearch_services.embedding import geometric_check
from imagesearch_services.embedding.comparison.alignment import Aligned, View, grey_of, warped
from imagesearch_services.embedding.geometric_check import Matrix, Points

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Color = tuple[int, int, int]

PANEL_PX = 420
"""Long side of each panel; smaller pictures are enlarged to it."""
GAP_PX = 16
CAPTION_PX = 30
LINE_PX = 3
GROUND = (255, 255, 255)
INK = (40, 40, 40)
FIRST_COLOR = (214, 90, 0)
"""Orange: the first picture's outline, and what only the first shows dark."""
SECOND_COLOR = (0, 104, 190)
"""Blue: the same of the second. Both are told apart by people who see no red or no green."""
FADE = 0.55
"""How far what only one picture shows is faded to white."""


def draw_overlay(first: View, second: View, aligned: Aligned | None) -> bytes:
    """Draw the first picture, both over each other, and the second, side by side.

    Where both show the same the middle is grey; where they differ it is orange or blue, as the
    outlines in which each lies. Without a credible alignment there is no middle.

    Returns:
        A PNG file.
    """
    if aligned is None or not aligned.is_credible:
        panels = [(_panel(first.pixels), "first"), (_panel(second.pixels), "second")]
    else:
        back = np.asarray(np.linalg.inv(aligned.matrix), np.float64)
        panels = [
            (_outlined(first, second, back, SECOND_COLOR), "first"),
            (_panel(_laid_over(first, second, aligned)), "aligned"),
            (_outlined(second, first, aligned.matrix, FIRST_COLOR), "second"),
        ]
    file = io.BytesIO()
    _side_by_side(panels).save(file, "PNG", compress_level=3)
    return file.getvalue()


def _laid_over(first: View, second: View, aligned: Aligned) -> Pixels:
    """Lay both over each other in the frame of the one that shows more."""
    if aligned.shown_of_first < aligned.shown_of_second:
        base, other, matrix = first, second, np.linalg.inv(aligned.matrix)
    else:
        base, other, matrix = second, first, aligned.matrix
    factor = PANEL_PX / max(base.size)
    size = (max(1, round(base.size[0] * factor)), max(1, round(base.size[1] * factor)))
    scale = np.diag([size[0] / base.size[0], size[1] / base.size[1], 1.0])
    ground, _ = warped(base.pixels, scale, size)
    moved, mask = warped(other.pixels, scale @ matrix, size)
    of_first, of_second = (ground, moved) if base is first else (moved, ground)
    grey_first, grey_second = (grey_of(each).astype(np.float32) for each in (of_first, of_second))
    faded = ground * (1 - FADE) + 255 * FADE
    both = _two_inks(_at_levels_of(grey_first, grey_second, mask), grey_second)
    drawn = Image.fromarray(np.where(mask[..., None], both, faded).astype(np.uint8))
    outline = geometric_check.transform(scale @ matrix, geometric_check.corners(other.size))
    _draw_outline(drawn, outline, SECOND_COLOR if base is first else FIRST_COLOR)
    return np.asarray(drawn)


def _at_levels_of(grey: Floats, other: Floats, mask: Mask) -> Floats:
    """Bring grey levels to the brightness and contrast of another picture, by what both show."""
    if not mask.any():
        return grey
    spread, spread_other = float(grey[mask].std()), float(other[mask].std())
    gain = np.clip(spread_other / spread, 0.25, 4.0) if spread > 1 else 1.0
    moved = (grey - grey[mask].mean()) * gain + other[mask].mean()
    return np.asarray(np.clip(moved, 0, 255), np.float32)


def _two_inks(first: Floats, second: Floats) -> Pixels:
    """Print grey levels [height, width] over each other, grey where they are the same."""
    both = np.minimum(first, second)[..., None]
    difference = np.clip((first - second)[..., None] / 255, -1, 1)
    # What is darker in one of them takes that one's color, the stronger the more it is.
    lighter = np.maximum(first, second)[..., None]
    ink = np.where(difference > 0, SECOND_COLOR, FIRST_COLOR)
    strength = np.sqrt(np.abs(difference))
    mixed = (1 - strength) * (0.5 * both + 0.5 * lighter) + strength * ink
    return np.asarray(mixed, np.uint8)


def _outlined(view: View, other: View, matrix: Matrix, color: Color) -> Image.Image:
    """Draw a picture with the outline of the other one in it."""
    panel = _panel(view.pixels)
    scale = np.diag([panel.width / view.size[0], panel.height / view.size[1], 1.0])
    _draw_outline(
        panel, geometric_check.transform(scale @ matrix, geometric_check.corners(other.size)), color
    )
    return panel


def _draw_outline(image: Image.Image, outline: Points, color: Color) -> None:
    """Draw an outline on a white line, so that it is seen on any ground; at most at the edges."""
    most_px = 8 * PANEL_PX  # far away it is not drawn, and Pillow is not given huge numbers
    points = [(float(x), float(y)) for x, y in np.clip(outline, -most_px, most_px)]
    pen = ImageDraw.Draw(image)
    for width, ink in ((LINE_PX + 2, GROUND), (LINE_PX, color)):
        pen.line([*points, points[0], points[1]], fill=ink, width=width, joint="curve")


def _panel(pixels: Pixels | Image.Image) -> Image.Image:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    factor = PANEL_PX / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.copy() if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def _side_by_side(panels: list[tuple[Image.Image, str]]) -> Image.Image:
    """Set panels beside each other with a word under each."""
    font = ImageFont.load_default(size=18)
    cell_px = max(80, *(panel.width for panel, _ in panels))
    height = max(panel.height for panel, _ in panels)
    width = len(panels) * cell_px + (len(panels) + 1) * GAP_PX
    canvas = Image.new("RGB", (width, height + CAPTION_PX + 2 * GAP_PX), GROUND)
    pen = ImageDraw.Draw(canvas)
    for at, (panel, word) in enumerate(panels):
        left = GAP_PX + at * (cell_px + GAP_PX)
        corner = (left + (cell_px - panel.width) // 2, GAP_PX + (height - panel.height) // 2)
        canvas.paste(panel, corner)
        middle = (left + cell_px / 2, height + GAP_PX + CAPTION_PX / 2)
        pen.text(middle, word, fill=INK, font=font, anchor="mm")
    return canvas
