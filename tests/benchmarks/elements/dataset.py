"""Elements to store, photos that show some of them, and photos that show none.

    python -m tests.benchmarks.elements.dataset --elements 1080 --queries 460 --negatives 520

Textures, objects and posters are cropped out of `../shared/data` or made with it; repeats and logos
are drawn with Simple Icons (CC0), which `npm pack` fetches once. The split follows from names alone
and everything else from seeds, so that every run makes the same. Files and `manifest.json` are
written to `.cache/elements/set-…`. What is tuned is tuned on the development edition: other
elements, other places, and of the photos without those that calibrate.py sees.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from tests.benchmarks.copies.dataset import all_names, data_folder
from tests.benchmarks.elements import drawing
from tests.benchmarks.elements.drawing import Drawn, Pixels

ROOT = Path(__file__).parents[3]
CACHE = ROOT / ".cache" / "elements"
ICONS_PACKAGE = "simple-icons@16.37.0"

KINDS = ("texture", "object", "poster", "repeat", "logo_tile", "logo_glyph")
SHARES = (0.18, 0.22, 0.17, 0.17, 0.13, 0.13)
"""Of each kind among the elements and the queries."""

AREA = (0.03, 0.30)
"""Share of the photo that an element takes, drawn evenly in logarithms."""
HOST_SIDES_PX = (800, 1280)
SECOND_ELEMENT = 0.12
"""Share of queries that show two elements."""
TWO_INSTANCES = 0.12
"""Share that show the element twice."""
FOREIGN = 0.3
"""Share of the photos without that show an element which is not stored."""
MAX_TRIES = 60


@dataclass(frozen=True, slots=True)
class Edition:
    """One of several benchmarks that share no drawing and no place in a photo."""

    name: str
    first_number: int
    """Of the elements of each kind."""
    stranger_step: int
    """Every how many photos without are taken."""


REPORTED = Edition("reported", 0, 1)
DEVELOPMENT = Edition("development", 305, 2)
EDITIONS = {edition.name: edition for edition in (REPORTED, DEVELOPMENT)}


@dataclass(frozen=True, slots=True)
class Element:
    """A stored element."""

    id: str
    kind: str
    file: str


@dataclass(frozen=True, slots=True)
class Appearance:
    """Where an element is in a photo: its corners, clockwise from its own top left, pixels."""

    element: str
    corners: list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Query:
    """A photo; without appearances, one that must not be answered."""

    file: str
    kind: str
    """Of the first element; "plain" or "foreign" for those without."""
    area: float
    """Share of the photo that the first element takes."""
    appearances: list[Appearance]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """All of it."""

    folder: Path
    elements: Sequence[Element]
    queries: Sequence[Query]
    negatives: Sequence[Query]


@dataclass(frozen=True, slots=True)
class Sources:
    """What elements and photos are made of; no picture serves two ends."""

    crops: Sequence[Path]
    """Street and garment photos that elements are cropped from."""
    products: Sequence[Path]
    """Catalogue pictures."""
    hosts: Sequence[Path]
    """Photos that elements are pasted into."""
    strangers: Sequence[Path]
    """Photos that show none."""
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
            # Garments share floors and crates: what is cropped from one could be seen in others.
            strangers=street[420:] + garments[-120:],
            icons=icons,
        )


def prepare(
    elements: int,
    queries: int,
    negatives: int,
    *,
    edition: Edition = REPORTED,
    data: Path | None = None,
) -> Benchmark:
    """Make the benchmark of that size, unless it is there."""
    folder = CACHE / f"set-{edition.name}-{elements}-{queries}-{negatives}-{_fingerprint()}"
    manifest = folder / "manifest.json"
    if not manifest.exists():
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("elements", "queries", "negatives"):
            (folder / name).mkdir(parents=True)
        sources = Sources.split(data or data_folder(), icon_paths())
        made = list(_elements(sources, elements, edition))
        written = {
            "elements": [asdict(_stored(folder, *one)) for one in made],
            "queries": [asdict(one) for one in _queries(sources, folder, made, queries, edition)],
            "negatives": [asdict(one) for one in _negatives(sources, folder, negatives, edition)],
        }
        manifest.write_text(json.dumps(written))
    read = json.loads(manifest.read_text())
    return Benchmark(
        folder,
        [Element(**one) for one in read["elements"]],
        [_query(one) for one in read["queries"]],
        [_query(one) for one in read["negatives"]],
    )


def icon_paths() -> list[Path]:
    """Give Simple Icons, shuffled the same way each time; fetch them the first time."""
    folder = CACHE / "icons"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(
            ["npm", "pack", "--silent", ICONS_PACKAGE], cwd=CACHE, check=True, capture_output=True
        )
        archive = CACHE / packed.stdout.decode().split()[-1]
        with tarfile.open(archive) as tar:
            members = [one for one in tar if one.name.startswith("package/icons/")]
            tar.extractall(CACHE / "unpacked", members, filter="data")
        (CACHE / "unpacked" / "package" / "icons").rename(folder)
        archive.unlink()
    return sorted(
        folder.glob("*.svg"), key=lambda path: hashlib.sha256(path.name.encode()).digest()
    )


def random_source(*names: object) -> random.Random:
    return random.Random("/".join(map(str, names)))  # noqa: S311  # pictures, no secrets


def read_pixels(path: Path) -> Pixels:
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise FileNotFoundError(path)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def write_pixels(path: Path, pixels: Pixels, quality: int = 92) -> None:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == ".jpg" else []
    cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)


def draw_element(kind: str, sources: Sources, number: int) -> Drawn:
    """Draw one element of a kind; a number gives the same each time, and no two share a source."""
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
    """Cut a part out of a photo, near its middle, where the garment is."""
    pixels = read_pixels(photos[number % len(photos)])
    height, width = pixels.shape[:2]
    side = min(height, width, round(max(96, min(height, width) * rng.uniform(0.4, 0.7))))
    left = round((width - side) * (0.5 + rng.uniform(-0.25, 0.25)))
    top = round((height - side) * (0.5 + rng.uniform(-0.25, 0.25)))
    return _at_side(np.ascontiguousarray(pixels[top : top + side, left : left + side]), 320)


def _object(sources: Sources, number: int, rng: random.Random) -> Drawn:
    if number < len(sources.products):
        pixels = _at_side(read_pixels(sources.products[number]), 320)
        return Drawn(pixels, drawing.cut_out(pixels) if number % 2 else drawing.opaque(pixels))
    photos = sources.crops[2::3]
    whole = read_pixels(photos[number % len(photos)])
    height, width = whole.shape[:2]
    high, wide = round(height * rng.uniform(0.4, 0.7)), round(width * rng.uniform(0.6, 0.9))
    top, left = rng.randint(0, height - high), rng.randint(0, width - wide)
    return _opaque(_at_side(np.ascontiguousarray(whole[top : top + high, left : left + wide]), 400))


def _at_side(pixels: Pixels, side_px: int) -> Pixels:
    factor = side_px / max(pixels.shape[:2])
    size = round(pixels.shape[1] * factor), round(pixels.shape[0] * factor)
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, size, interpolation=way), np.uint8)


def _counts(total: int) -> list[tuple[str, int]]:
    counts = [math.floor(total * share) for share in SHARES]
    counts[0] += total - sum(counts)
    return list(zip(KINDS, counts, strict=True))


def _elements(sources: Sources, total: int, edition: Edition) -> Iterator[tuple[str, int, Drawn]]:
    for kind, count in _counts(total):
        for number in range(edition.first_number, edition.first_number + count):
            yield kind, number, draw_element(kind, sources, number)


def _stored(folder: Path, kind: str, number: int, drawn: Drawn) -> Element:
    name = f"{kind}-{number:04d}"
    file = f"elements/{name}.{'png' if kind in {'logo_glyph', 'repeat'} else 'jpg'}"
    write_pixels(folder / file, drawn.stored)
    return Element(name, kind, file)


def _queries(
    sources: Sources,
    folder: Path,
    made: Sequence[tuple[str, int, Drawn]],
    total: int,
    edition: Edition,
) -> Iterator[Query]:
    by_kind = {kind: [one for one in made if one[0] == kind] for kind in KINDS}
    row = 0
    for kind, count in _counts(total):
        for turn in range(count):
            rng = random_source("query", kind, edition.first_number + turn)
            several = by_kind[kind]
            chosen = [several[turn * max(1, len(several) // max(1, count)) % len(several)]]
            draw = rng.random()
            if draw < SECOND_ELEMENT:
                chosen.append(rng.choice(made))
            elif draw < SECOND_ELEMENT + TWO_INSTANCES:
                chosen.append(chosen[0])
            host = _host(sources.hosts[row % len(sources.hosts)], rng)
            photo = Photo(host, rng)
            appearances = []
            for kind_, number, drawn in chosen:
                corners = photo.paste(drawn.pasted)
                if corners is not None:
                    appearances.append(Appearance(f"{kind_}-{number:04d}", corners))
            file = f"queries/{row:04d}.jpg"
            write_pixels(folder / file, photo.pixels, quality=rng.randint(55, 92))
            yield Query(file, kind, photo.areas[0], appearances)
            row += 1


def _negatives(sources: Sources, folder: Path, total: int, edition: Edition) -> Iterator[Query]:
    first_foreign = round(total * (1 - FOREIGN))
    for row in range(total):
        rng = random_source("negative", edition.first_number + row)
        stranger = row * edition.stranger_step % len(sources.strangers)
        photo = Photo(_host(sources.strangers[stranger], rng), rng)
        kind = "plain"
        if row >= first_foreign:
            # Counted from the end: icons that no stored element shows, and no crops of photos.
            kind = "foreign"
            what = rng.choice(["logo_tile", "logo_glyph", "repeat"])
            number = -1 - (row - first_foreign) * edition.stranger_step
            photo.paste(draw_element(what, sources, number).pasted)
        file = f"negatives/{row:04d}.jpg"
        write_pixels(folder / file, photo.pixels, quality=rng.randint(55, 92))
        yield Query(file, kind, 0.0, [])


def _host(photo: Path, rng: random.Random) -> Pixels:
    return _at_side(read_pixels(photo), rng.randint(*HOST_SIDES_PX)).copy()


class Photo:
    """A photo that elements are pasted into."""

    def __init__(self, pixels: Pixels, rng: random.Random) -> None:
        self.pixels = pixels
        self.areas: list[float] = []
        self._rng = rng
        self._taken = np.zeros(pixels.shape[:2], np.uint8)

    def paste(self, rgba: Pixels) -> list[tuple[float, float]] | None:
        """Paste an element, turned, in perspective, recoloured and blurred; give its corners.

        None where there is no room left.
        """
        rng = self._rng
        height, width = self.pixels.shape[:2]
        high, wide = rgba.shape[:2]
        for attempt in range(MAX_TRIES):
            area = math.exp(rng.uniform(*map(math.log, AREA))) * (0.97**attempt)
            area = max(area, AREA[0])
            quad = self._outline(wide / high, area * height * width)
            if quad[:, 0].min() < 0 or quad[:, 1].min() < 0:
                continue
            if quad[:, 0].max() >= width or quad[:, 1].max() >= height:
                continue
            mask = np.zeros_like(self._taken)
            cv2.fillConvexPoly(mask, np.rint(quad).astype(np.int32), 1)
            if (mask & self._taken).any():
                continue
            self._taken |= mask
            self.areas.append(float(mask.mean()))
            self._blend(rgba, quad)
            return [(round(float(x), 2), round(float(y), 2)) for x, y in quad]
        if not self.areas:
            self.areas.append(0.0)
        return None

    def _outline(self, aspect: float, area_px: float) -> np.ndarray:
        rng = self._rng
        height, width = self.pixels.shape[:2]
        high = math.sqrt(area_px / aspect)
        wide = high * aspect
        turn = math.radians(rng.uniform(-180, 180) if rng.random() < 0.1 else rng.gauss(0, 22))
        corners = np.array([(-wide, -high), (wide, -high), (wide, high), (-wide, high)]) / 2
        jitter = 0.07 * min(wide, high)
        corners += np.array([[rng.uniform(-jitter, jitter) for _ in range(2)] for _ in range(4)])
        cosine, sine = math.cos(turn), math.sin(turn)
        turned = corners @ np.array([[cosine, sine], [-sine, cosine]])
        half = np.abs(turned).max(axis=0)
        middle = [
            rng.uniform(min(half[axis], side / 2), max(side - half[axis], side / 2))
            for axis, side in enumerate((width, height))
        ]
        return np.asarray(turned + np.array(middle), float)

    def _blend(self, rgba: Pixels, quad: np.ndarray) -> None:
        rng = self._rng
        height, width = self.pixels.shape[:2]
        side = math.sqrt(max(1.0, cv2.contourArea(quad.astype(np.float32))))
        factor = side / math.sqrt(rgba.shape[0] * rgba.shape[1])
        if factor < 1:
            size = max(2, round(rgba.shape[1] * factor)), max(2, round(rgba.shape[0] * factor))
            rgba = np.asarray(cv2.resize(rgba, size, interpolation=cv2.INTER_AREA), np.uint8)
        rgba = np.dstack([_recoloured(rgba[:, :, :3], rng), rgba[:, :, 3]])
        high, wide = rgba.shape[:2]
        source = np.array([(0, 0), (wide, 0), (wide, high), (0, high)], np.float32)
        matrix = cv2.getPerspectiveTransform(source, quad.astype(np.float32))
        warped = cv2.warpPerspective(rgba, matrix, (width, height), flags=cv2.INTER_LINEAR)
        sigma = rng.choice([0.0, 0.0, rng.uniform(0.4, 1.6)])
        if sigma:
            warped = cv2.GaussianBlur(warped, (0, 0), sigma)
        # Color under transparent edges is none: blend by the blurred alpha alone.
        self.pixels = drawing.over(np.asarray(warped, np.uint8), self.pixels)


def _recoloured(pixels: Pixels, rng: random.Random) -> Pixels:
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[:, :, 0] = (hsv[:, :, 0] + rng.uniform(-12, 12)) % 180
    hsv[:, :, 1] *= 0.0 if rng.random() < 0.08 else rng.uniform(0.6, 1.35)
    hsv[:, :, 2] = hsv[:, :, 2] * rng.uniform(0.6, 1.2) + rng.uniform(-15, 25)
    clipped = np.clip(hsv, 0, (179, 255, 255)).astype(np.uint8)
    return np.asarray(cv2.cvtColor(clipped, cv2.COLOR_HSV2RGB), np.uint8)


def _query(fields: dict[str, object]) -> Query:
    appearances = [
        Appearance(one["element"], [(x, y) for x, y in one["corners"]])
        for one in fields.pop("appearances")  # type: ignore[attr-defined]
    ]
    return Query(**fields, appearances=appearances)


def _fingerprint() -> str:
    """Tell this way of making the benchmark from any other."""
    here = Path(__file__).parent
    files = [here / "drawing.py", Path(__file__)]
    return hashlib.sha256(b"".join(map(Path.read_bytes, files))).hexdigest()[:8]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--elements", type=int, default=1080)
    parser.add_argument("--queries", type=int, default=460)
    parser.add_argument("--negatives", type=int, default=520)
    parser.add_argument("--edition", choices=EDITIONS, default=REPORTED.name)
    options = parser.parse_args()
    made = prepare(
        options.elements,
        options.queries,
        options.negatives,
        edition=EDITIONS[options.edition],
    )
    print(  # noqa: T201
        f"{len(made.elements)} elements, {len(made.queries)} queries, "
        f"{len(made.negatives)} photos without, in {made.folder}"
    )


if __name__ == "__main__":
    main()
