"""The source pictures and icons of elements and photos; no picture serves two purposes."""

from __future__ import annotations

import hashlib
import random
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imagesearch_services.models.common.pictures import CACHE, all_names, random_source, read_pixels
from imagesearch_services.models.elements import drawing
from imagesearch_services.models.elements.drawing import Drawn, Pixels
from imagesearch_services.models.elements.photos import at_side

FOLDER = CACHE / "elements"
ICONS_PACKAGE = "simple-icons@16.37.0"
"""npm package of Simple Icons (CC0)."""
KINDS = ("texture", "object", "poster", "repeat", "logo_tile", "logo_glyph")


@dataclass(frozen=True, slots=True)
class Sources:
    """The files from which elements and photos are made."""

    crops: Sequence[Path]
    """Street and garment photos that elements are cropped from."""
    products: Sequence[Path]
    """Catalogue pictures of products."""
    hosts: Sequence[Path]
    """Photos that elements are pasted into."""
    strangers: Sequence[Path]
    """Photos for the negatives, which show no stored element."""
    icons: Sequence[Path]

    @classmethod
    def split(cls, data: Path, icons: Sequence[Path]) -> Sources:
        names = all_names(data)
        street = [data / name for name in names if name.startswith("street")]
        garments = [data / name for name in names if name.startswith("garments")]
        return cls(
            crops=street[:220] + garments[:440],
            products=[data / name for name in names if name.startswith("grocery/catalogue")],
            hosts=street[220:420] + garments[440:540],
            # Garment photos share floors and crates, so a crop of one could appear in others.
            strangers=street[420:] + garments[-120:],
            icons=icons,
        )


def icon_paths() -> list[Path]:
    """Return the files of Simple Icons in a fixed random order; fetch them if they are missing."""
    folder = FOLDER / "icons"
    if not folder.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(  # noqa: S603 our own arguments
            ["npm", "pack", "--silent", ICONS_PACKAGE],  # noqa: S607 npm of the PATH
            cwd=FOLDER,
            check=True,
            capture_output=True,
        )
        archive = FOLDER / packed.stdout.decode().split()[-1]
        with tarfile.open(archive) as tar:
            members = [member for member in tar if member.name.startswith("package/icons/")]
            tar.extractall(FOLDER / "unpacked", members, filter="data")
        (FOLDER / "unpacked" / "package" / "icons").rename(folder)
        archive.unlink()
    return sorted(
        folder.glob("*.svg"), key=lambda path: hashlib.sha256(path.name.encode()).digest()
    )


def draw_element(kind: str, sources: Sources, number: int) -> Drawn:
    """Draw the element of a kind and number; no two elements share an icon."""
    rng = random_source(kind, number)
    icon = sources.icons[(number * len(KINDS) + KINDS.index(kind)) % len(sources.icons)]
    makers: dict[str, Callable[[], Drawn]] = {
        "logo_glyph": lambda: drawing.glyph(icon, rng),
        "logo_tile": lambda: drawing.tile(icon, rng),
        "repeat": lambda: drawing.repeat(icon, rng),
        "poster": lambda: drawing.poster(_crop(sources.crops[::3], number, rng), rng),
        "texture": lambda: _opaque(_crop(sources.crops[1::3], number, rng)),
        "object": lambda: _object(sources, number, rng),
    }
    return makers[kind]()


def _opaque(pixels: Pixels) -> Drawn:
    return Drawn(pixels, drawing.opaque(pixels))


def _crop(photos: Sequence[Path], number: int, rng: random.Random) -> Pixels:
    """Crop a part near the center of a photo, where the garment is."""
    pixels = read_pixels(photos[number % len(photos)])
    height, width = pixels.shape[:2]
    side = min(height, width, round(max(96, min(height, width) * rng.uniform(0.4, 0.7))))
    left = round((width - side) * (0.5 + rng.uniform(-0.25, 0.25)))
    top = round((height - side) * (0.5 + rng.uniform(-0.25, 0.25)))
    return at_side(np.ascontiguousarray(pixels[top : top + side, left : left + side]), 320)


def _object(sources: Sources, number: int, rng: random.Random) -> Drawn:
    if number < len(sources.products):
        pixels = at_side(read_pixels(sources.products[number]), 320)
        return Drawn(pixels, drawing.cut_out(pixels) if number % 2 else drawing.opaque(pixels))
    photos = sources.crops[2::3]
    whole = read_pixels(photos[number % len(photos)])
    height, width = whole.shape[:2]
    high, wide = round(height * rng.uniform(0.4, 0.7)), round(width * rng.uniform(0.6, 0.9))
    top, left = rng.randint(0, height - high), rng.randint(0, width - wide)
    return _opaque(at_side(np.ascontiguousarray(whole[top : top + high, left : left + wide]), 400))


def unused_photos(data: Path) -> list[str]:
    """Return the names of photos that neither elements nor queries of the benchmark use."""
    names = all_names(data)
    street = [name for name in names if name.startswith("street")][420:]
    garments = [name for name in names if name.startswith("garments")][540:]
    return sorted([*street, *garments], key=lambda name: hashlib.sha256(name.encode()).digest())
