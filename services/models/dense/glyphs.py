"""Measure retrieval of bare glyphs by the teacher, by the teacher on edge maps, and by gradients.

    python -m imagesearch_services.models.dense.glyphs

Each glyph is stored black on white. The query shows the glyph in another color on a photo, rotated
by about 12°, in a window that is centered on it within a few pixels. Requires the result of
`train things`.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.models.common.pictures import data_folder, read_pixels
from imagesearch_services.models.dense import pixels
from imagesearch_services.models.dense.pixels import Picture
from imagesearch_services.models.dense.teacher import Teacher, load_targets
from imagesearch_services.models.dense.things import FOLDER, learned_photos

GLYPHS = 110
"""Default number of glyphs."""
WINDOW_PX, GLYPH_PX, GRADIENT_PX = 300, 220, 128
"""Sides of a query, of the glyph in it, and of the input of the gradients, in pixels."""
BINS = 9
"""Number of gradient directions."""
LISTED = 10
"""Number of ranks within which a glyph counts as found."""
STORED_TURNS = (-20, -10, 0, 10, 20)
"""Rotations of stored glyphs, in degrees."""
BLACK, WHITE = (0, 0, 0), (255, 255, 255)

Floats = npt.NDArray[np.float32]


def draw_query(glyph: Picture, photo: Picture, rng: random.Random) -> Picture:
    """Draw a query: the glyph on a part of the photo."""
    x, y = rng.randint(0, 100), rng.randint(0, 100)
    resized = np.asarray(cv2.resize(photo, (400, 400)), np.uint8)
    window = resized[y : y + WINDOW_PX, x : x + WINDOW_PX].copy()
    factor = GLYPH_PX / max(glyph.shape[:2])
    size = [max(8, round(side * factor)) for side in glyph.shape[1::-1]]
    ink = pixels.contrasting(window.mean((0, 1)), rng)
    small = cv2.resize(pixels.painted(glyph, ink), size, interpolation=cv2.INTER_AREA)
    turn = cv2.getRotationMatrix2D((size[0] / 2, size[1] / 2), rng.gauss(0, 12), 0.9)
    turned = cv2.warpAffine(small, turn, size)
    left, top = ((WINDOW_PX - side) // 2 + rng.randint(-12, 12) for side in size)
    pixels.over(window, turned, left, top)
    return window


def _gradient(picture: npt.NDArray[Any], blur_px: float) -> tuple[Floats, Floats]:
    """Return the horizontal and vertical gradient of the strongest channel at each pixel."""
    smooth = cv2.GaussianBlur(picture, (0, 0), blur_px).astype(np.float32)
    across, down = (
        np.stack([cv2.Sobel(smooth[..., c], cv2.CV_32F, *way) for c in range(3)])
        for way in ((1, 0), (0, 1))
    )
    strongest = np.hypot(across, down).argmax(0)[None]
    return (
        np.take_along_axis(across, strongest, 0)[0],
        np.take_along_axis(down, strongest, 0)[0],
    )


def edges(picture: Picture) -> Picture:
    """Return a map of edge strength, with strong edges black on white."""
    strength = np.hypot(*_gradient(picture, 1.2))
    strength = np.clip(strength / max(np.percentile(strength, 98), 1) * 255, 0, 255)
    return np.dstack([255 - strength.astype(np.uint8)] * 3)


def gradients(picture: Picture, cells: int) -> Floats:
    """Return histograms of unsigned gradient directions in cells × cells cells, unit length.

    After Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection", CVPR 2005. With
    unsigned directions, a glyph and its negative have the same histograms.
    """
    size = (GRADIENT_PX, GRADIENT_PX)
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    across, down = _gradient(small, 1.0)
    strength = np.hypot(across, down)
    strength = np.sqrt(np.maximum(strength / (strength.max() + 1e-6) - 0.12, 0))
    at = (np.arctan2(down, across) % np.pi) / np.pi * BINS
    low, share = np.floor(at).astype(int) % BINS, (at % 1).astype(np.float32)
    layers = np.zeros((BINS, *size), np.float32)
    rows, columns = np.indices(size)
    layers[low, rows, columns] = strength * (1 - share)
    layers[(low + 1) % BINS, rows, columns] += strength * share
    blur_px = GRADIENT_PX / cells / 2
    pooled = [
        cv2.resize(cv2.GaussianBlur(layer, (0, 0), blur_px), (cells, cells),
                   interpolation=cv2.INTER_AREA)
        for layer in layers
    ]  # fmt: skip
    return unit(np.sqrt(np.stack(pooled, -1).ravel()))


def turned_views(glyph: Picture) -> list[Picture]:
    """Return the glyph black on white in a square, in each of the stored rotations."""
    stored = pixels.on_ground(pixels.painted(glyph, BLACK), WHITE, 0.18)
    height, width = stored.shape[:2]
    side = max(height, width)
    rows, columns = side - height, side - width
    square = cv2.copyMakeBorder(
        stored, rows // 2, rows - rows // 2, columns // 2, columns - columns // 2,
        cv2.BORDER_CONSTANT, value=WHITE,
    )  # fmt: skip
    views = []
    for degrees in STORED_TURNS:
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), degrees, 1)
        turned = cv2.warpAffine(square, turn, (side, side), borderValue=WHITE)
        views.append(np.asarray(turned, np.uint8))
    return views


def unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-6))


def centered(stored: Floats) -> Floats:
    """Subtract the mean of all vectors and normalize, [..., D]."""
    return unit(stored - stored.reshape(-1, stored.shape[-1]).mean(0))


def report(name: str, scores: Floats) -> None:
    ranks = (scores > np.diag(scores)[:, None]).sum(1)
    print(f"| {name} | {(ranks == 0).mean():.2f} | {(ranks < LISTED).mean():.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of the data set")
    parser.add_argument("--work", type=Path, default=FOLDER, help="folder of intermediate results")
    parser.add_argument("--glyphs", type=int, default=GLYPHS)
    options = parser.parse_args()
    things, _ = load_targets(options.work)
    drawn = [thing.drawn for thing in things if thing.kind == "glyph" and thing.drawn]
    glyphs = [pixels.decode(picture) for picture in drawn[: options.glyphs]]
    rng = random.Random(3)
    names = learned_photos(options.data)
    queries = [
        draw_query(glyph, read_pixels(options.data / rng.choice(names)), rng) for glyph in glyphs
    ]
    black, white = (
        [pixels.on_ground(pixels.painted(glyph, ink), paper) for glyph in glyphs]
        for ink, paper in ((BLACK, WHITE), (WHITE, BLACK))
    )
    teacher = Teacher()
    vectors = teacher(queries)
    of_black, of_white = teacher(black), teacher(white)
    query_edges = teacher([edges(picture) for picture in queries])
    of_edges = teacher([edges(picture) for picture in black])
    print("| bare glyphs on photos | R@1 | R@10 |\n|---|---:|---:|")
    report("teacher", vectors @ of_black.T)
    report(
        "teacher, also stored as white on black",
        np.maximum(vectors @ of_black.T, vectors @ of_white.T),
    )
    report("teacher, on edges", query_edges @ of_edges.T)
    for cells in (8, 10):
        stored = np.stack(
            [[gradients(view, cells) for view in turned_views(glyph)] for glyph in glyphs]
        )
        found = np.stack([gradients(picture, cells) for picture in queries])
        mean = stored.mean((0, 1))
        report(f"gradients, {cells} × {cells}", np.einsum("qd,gvd->qgv", found, stored).max(2))
        scores = np.einsum("qd,gvd->qgv", unit(found - mean), centered(stored)).max(2)
        report(f"gradients minus their mean, {cells} × {cells}", scores)
    report("previous row plus teacher on edges", scores + query_edges @ centered(of_edges).T)


if __name__ == "__main__":
    main()
