"""Learn the shape book of element search: descriptors of shapes, words and landmarks.

    mkdir -p .cache/elements/packages && cd .cache/elements/packages
    for name in mdi ph; do npm pack "@iconify-json/$name"; done
    cd - && python -m imagesearch_services.models.elements.shapes

Writes `services/embedding/elements/shapes.npz`. The shape book is learned from icons of everyday
things without brands (Material Design Icons, Apache-2.0; Phosphor, MIT), each undistorted and in
two views distorted as in a photo. Landmarks are letters, and flat segments of photos that the
benchmark neither stores nor uses as queries.
"""

from __future__ import annotations

import argparse
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pyvips

from imagesearch_services.embedding.elements import shapes
from imagesearch_services.embedding.elements.masks import MASK_SIDE_PX
from imagesearch_services.embedding.elements.segments import find_segments
from imagesearch_services.models.common.pictures import all_names, data_folder, read_pixels
from imagesearch_services.models.elements.clustering import k_means
from imagesearch_services.models.elements.sources import FOLDER

Floats = npt.NDArray[np.float32]

PACKAGES = FOLDER / "packages"
"""Folder of the npm packages with icons."""
SIDE_PX = 240
"""Side of a rendered icon, in pixels."""
VIEWS = 2
"""Number of distorted views of each icon."""
COMPONENTS = 32
"""Number of discriminant components of a descriptor that are kept."""
TABLES, TABLE_COMPONENTS, CENTERS = 24, 8, 512
"""Number of codebooks, of components per codebook, and of centers per codebook."""
SHRINKAGE = 0.1
"""Share of the mean variance under distortions that is added to the variance in each direction."""
LANDMARKS = 400
"""Maximum number of landmarks from photos."""
LANDMARK_PHOTOS = 60
"""Number of photos that landmarks come from."""
ITERATIONS = 8
"""Number of iterations of k-means."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
LETTER_FONTS = ("sans bold", "serif")


def icons(count: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Yield masks of icons, float32 [SIDE_PX, SIDE_PX] from 0 to 1."""
    drawn = []
    for package in sorted(PACKAGES.glob("*.tgz")):
        with tarfile.open(package) as archive:
            file = archive.extractfile("package/icons.json")
            if file is None:
                raise FileNotFoundError(f"{package} has no package/icons.json")
            collection = json.load(file)
        side = collection.get("width", 24)
        drawn += [(icon["body"], icon.get("width", side)) for icon in collection["icons"].values()]
    for row in rng.permutation(len(drawn))[:count]:
        body, units = drawn[row]
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {units} {units}" '
            f'width="{SIDE_PX}" height="{SIDE_PX}" color="black">{body}</svg>'
        )
        rendered = pyvips.Image.svgload_buffer(svg.encode()).numpy()
        yield np.asarray(rendered[:, :, 3], np.float32) / np.float32(255)


def distorted(mask: Floats, rng: np.random.Generator) -> Floats:
    """Rotate, distort, shrink and blur a mask; remove small pieces from some masks."""
    height, width = mask.shape
    scale = rng.uniform(0.25, 0.9)
    turn = rng.normal(0, 0.4) if rng.random() < 0.9 else rng.uniform(-np.pi, np.pi)
    corners = np.array([(-width, -height), (width, -height), (width, height), (-width, height)])
    corners = corners / 2 * scale
    corners += rng.uniform(-0.07, 0.07, (4, 2)) * min(width, height) * scale
    cosine, sine = np.cos(turn), np.sin(turn)
    corners = corners @ np.array([[cosine, sine], [-sine, cosine]])
    corners -= corners.min(axis=0) - 8
    size = [int(side) for side in corners.max(axis=0) + 8]
    small = cv2.resize(mask, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    high, wide = small.shape
    frame = np.array([(0, 0), (wide, 0), (wide, high), (0, high)], np.float32)
    matrix = cv2.getPerspectiveTransform(frame, corners.astype(np.float32))
    warped = np.asarray(cv2.warpPerspective(small, matrix, size), np.float32)
    if rng.random() < 0.5:
        warped = np.asarray(cv2.GaussianBlur(warped, (0, 0), rng.uniform(0.4, 1.6)), np.float32)
    steep = (warped - 0.5) * rng.uniform(1, 3) + 0.5 + rng.uniform(-0.15, 0.15)
    warped = np.asarray(np.clip(steep, 0, 1), np.float32)
    if rng.random() < 0.3:
        _, labels, boxes, _ = cv2.connectedComponentsWithStats((warped > 0.3).astype(np.uint8))
        small_pieces = np.flatnonzero(boxes[:, 4] < 0.04 * boxes[1:, 4].sum())
        warped[np.isin(labels, small_pieces)] = 0
    return warped


def profile(mask: Floats) -> Floats | None:
    """Crop a mask as a segment is cropped, and sample it on rings; None if the mask is empty."""
    rows, columns = np.nonzero(mask > 0.5)
    if not len(rows):
        return None
    part = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    part = np.pad(part, int(0.08 * max(part.shape)) + 3)
    factor = MASK_SIDE_PX / max(part.shape)
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(part, None, fx=factor, fy=factor, interpolation=method)
    found = shapes.sample_rings(np.asarray(resized, np.float32))
    return None if found is None else found[0]


def pairs(count: int, rng: np.random.Generator) -> Floats:
    """Return profiles of icons and of their views, [icons, 1 + views, rings, directions]."""
    found = []
    for mask in icons(count, rng):
        views = (mask, *(distorted(mask, rng) for _ in range(VIEWS)))
        profiles = [profile(view) for view in views]
        valid = [row for row in profiles if row is not None]
        if len(valid) == len(profiles):
            found.append(np.stack(valid))
    return np.stack(found)


def landmarks(data: Path) -> Floats:
    """Return profiles of the best flat segments of photos, [landmarks, rings, directions]."""
    names = all_names(data)
    garments = [name for name in names if name.startswith("garments")][540:-120]
    shelves = [name for name in names if name.startswith("grocery/shelf")]
    chosen = [
        group[row * len(group) // LANDMARK_PHOTOS]
        for row in range(LANDMARK_PHOTOS // 2)
        for group in (garments, shelves)
    ]
    found: list[Floats] = []
    for name in chosen:
        pixels = read_pixels(data / name)
        factor = 1000 / max(pixels.shape[:2])
        pixels = np.asarray(cv2.resize(pixels, None, fx=factor, fy=factor), np.uint8)
        sampled = [shapes.sample_rings(segment.mask) for segment in find_segments(pixels)]
        found += [rings[0] for rings in sampled if rings is not None]
    return np.stack(found)[:: max(1, len(found) // LANDMARKS)][:LANDMARKS]


def letters() -> Floats:
    """Return profiles of single letters and digits, which occur in any text."""
    found = []
    for font in LETTER_FONTS:
        for letter in LETTERS:
            drawn = pyvips.Image.text(letter, font=font, width=SIDE_PX, height=SIDE_PX).numpy()
            mask = np.asarray(drawn, np.float32).reshape(drawn.shape[:2]) / np.float32(255)
            rings = profile(np.asarray(mask, np.float32))
            if rings is not None:
                found.append(rings)
    return np.stack(found)


def learn(icon_profiles: Floats, landmark_profiles: Floats) -> dict[str, npt.NDArray[np.generic]]:
    """Return the arrays of the shape book.

    Args:
        icon_profiles: Profiles of icons and their views, [icons, 1 + views, rings, directions].
        landmark_profiles: Profiles of landmarks, [landmarks, rings, directions].
    """
    flat = icon_profiles.reshape(-1, *icon_profiles.shape[2:])
    described = shapes.ring_magnitudes(flat).reshape(len(icon_profiles), 1 + VIEWS, -1)
    mean = described[:, 0].mean(axis=0)
    projection = discriminants(described, mean)
    reduced = (described - mean) @ projection
    reduced /= np.linalg.norm(reduced, axis=2, keepdims=True)
    rng = np.random.default_rng(0)
    rotations = [
        np.linalg.qr(rng.normal(size=(COMPONENTS, COMPONENTS)))[0]
        for _ in range(TABLES * TABLE_COMPONENTS // COMPONENTS)
    ]
    directions = np.concatenate(rotations, axis=1).reshape(COMPONENTS, TABLES, TABLE_COMPONENTS)
    tables = directions.transpose(1, 0, 2).astype(np.float32)
    points = reduced.reshape(-1, COMPONENTS).astype(np.float32)
    books = [k_means(points @ table, CENTERS, ITERATIONS) for table in tables]
    return {
        "mean": mean.astype(np.float32),
        "projection": projection.astype(np.float16),
        "tables": tables.astype(np.float16),
        "books": np.stack(books).astype(np.float16),
        "landmarks": np.rint(np.clip(landmark_profiles, 0, 1) * shapes.LEVELS).astype(np.uint8),
    }


def discriminants(described: Floats, mean: Floats) -> Floats:
    """Return the directions in which icons differ most, relative to their change by distortion."""
    edits = (described[:, 1:] - described[:, :1]).reshape(-1, described.shape[2])
    within = edits.T @ edits / len(edits)
    within += SHRINKAGE * np.trace(within) / len(within) * np.eye(len(within))
    values, vectors = np.linalg.eigh(within)
    whitening = vectors / np.sqrt(values)
    between = (described[:, 0] - mean) @ whitening
    _, directions = np.linalg.eigh(between.T @ between / len(between))
    return np.asarray(whitening @ directions[:, ::-1][:, :COMPONENTS], np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of the data set")
    parser.add_argument("--icons", type=int, default=4500)
    parser.add_argument("--output", type=Path, default=shapes.FILE)
    options = parser.parse_args()
    icon_profiles = pairs(options.icons, np.random.default_rng(0))
    learned = learn(icon_profiles, np.concatenate([landmarks(options.data), letters()]))
    np.savez_compressed(options.output, **learned)  # type: ignore[arg-type]
    print(f"learned from {len(icon_profiles)} icons: {options.output}")


if __name__ == "__main__":
    main()
