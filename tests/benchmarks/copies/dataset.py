"""Which pictures are stored, which are edited into queries, and which are strangers.

    python -m tests.benchmarks.copies.dataset --data ../shared/data

The split follows from the names alone, so that every run has the same. Query files are written
once to `.cache/copies/queries-…`, beside a manifest of JSON lines: file, kind, original (null for
strangers), true box of the copy (null for edits of the whole picture).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image, ImageOps

from tests.benchmarks.copies.edits import EDITS
from tests.benchmarks.copies.placements import PLACEMENTS, PixelBox

ROOT = Path(__file__).parents[3]
DATA_VARIABLE = "IMAGESEARCH_BENCHMARK_DATA"
DEFAULT_DATA = ROOT.parent / "shared" / "data"
CACHE = ROOT / ".cache" / "copies"
RELATED = Path(__file__).parent / "related.json"
"""Names of pictures that are the same but for a moment (SSCD similarity ≥ .86, all looked at), and
of those not stored that share floor, sheet, crate or street corner with a stored one (≥ .45:
contact sheets show the same place nearly always above that, and by chance below .4)."""

BACKGROUND = 1200
"""Pictures that the background set of the copy descriptor is made of, and that are nothing else."""
STORED = 2300
ORIGINALS = 150
"""Stored pictures that every edit is made of."""
CALIBRATION = 350
"""Strangers kept for calibrate.py; the benchmark uses them only as what others are pasted into."""
PLACED_STRANGERS = 100
"""Strangers of each kind of placement."""

STRANGER = "stranger"
SERIES_STRANGER = "stranger_of_a_stored_series"
SOURCES = (
    ("garments", "garments/*/*.jpg"),
    ("grocery", "grocery/**/*.jpg"),
    ("street", "street/photos/*.jpg"),
)
QUALITY = 92
"""Of the query files that no edit compressed itself: JPEG, as most files are."""


@dataclass(frozen=True, slots=True)
class Split:
    """Names relative to the data folder."""

    background: Sequence[str]
    """What the background set is made of; neither stored nor asked for."""
    stored: Sequence[str]
    originals: Sequence[str]
    """Some of the stored."""
    strangers: Sequence[str]
    """Not stored, nor is anything of their series."""
    series_strangers: Sequence[str]
    """Not stored, but other pictures of their series are: hard, and counted apart."""
    calibration: Sequence[str]
    """More strangers, which the benchmark's own figures never see as queries."""


@dataclass(frozen=True, slots=True)
class Query:
    """One line of the manifest."""

    file: str
    """Relative to the manifest's folder."""
    kind: str
    """Name of the edit or placement, or of strangers."""
    original: str | None
    """The stored picture to be found; None: nothing is to be found."""
    box: PixelBox | None
    """Where the copy is, for placements."""

    @property
    def is_stranger(self) -> bool:
        return self.original is None


def data_folder() -> Path:
    """Give the folder of the pictures, by the environment or the default."""
    return Path(os.environ.get(DATA_VARIABLE, DEFAULT_DATA))


def read_rgb(path: Path) -> Image.Image:
    """Read a picture upright, as RGB."""
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def all_names(data: Path) -> list[str]:
    """Name every picture, in an order that depends on the names alone but not on the folders."""
    names = [
        path.relative_to(data).as_posix() for _, pattern in SOURCES for path in data.glob(pattern)
    ]
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())


def split(names: Sequence[str]) -> Split:
    """Share the pictures out; of several that are the same but for a moment one is used."""
    related = json.loads(RELATED.read_text())
    repeated = {name for group in related["same"] for name in sorted(group)[1:]}
    used = [name for name in names if name not in repeated]
    background, used = used[:BACKGROUND], used[BACKGROUND:]
    stored, rest = used[:STORED], used[STORED:]
    of_series = set(related["strangers_of_stored_series"])
    in_stored_series = [name for name in rest if name in of_series]
    strangers = [name for name in rest if name not in of_series]
    return Split(
        background=background,
        stored=stored,
        originals=stored[:ORIGINALS],
        strangers=strangers[CALIBRATION:],
        series_strangers=in_stored_series,
        calibration=strangers[:CALIBRATION],
    )


def prepare(data: Path, limit: int | None = None) -> tuple[Split, Path, list[Query]]:
    """Make the queries, unless they are there.

    Args:
        data: folder of the pictures.
        limit: about how many queries; None: all.

    Returns:
        The split, the folder of the queries, and the queries.
    """
    parts = split(all_names(data))
    folder = CACHE / f"queries-{limit or 'all'}-{_fingerprint()}"
    manifest = folder / "manifest.jsonl"
    if not manifest.exists():
        folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(asdict(query)) for query in _make(data, parts, folder, limit)]
        manifest.write_text("\n".join(lines) + "\n")
    return parts, folder, list(read_manifest(manifest))


def read_manifest(manifest: Path) -> Iterator[Query]:
    """Read the queries back."""
    for line in manifest.read_text().splitlines():
        fields = json.loads(line)
        box = fields["box"]
        yield Query(
            fields["file"],
            fields["kind"],
            fields["original"],
            None if box is None else PixelBox(*box),
        )


def _fingerprint() -> str:
    """Tell this way of making queries from any other."""
    here = Path(__file__).parent
    sources = [here / "edits.py", here / "placements.py", Path(__file__), RELATED]
    return hashlib.sha256(b"".join(map(Path.read_bytes, sources))).hexdigest()[:8]


def _make(data: Path, parts: Split, folder: Path, limit: int | None) -> Iterator[Query]:
    kinds = len(EDITS) + len(PLACEMENTS)
    strangers = len(parts.strangers) + len(parts.series_strangers)
    strangers += PLACED_STRANGERS * len(PLACEMENTS)
    share = 1.0 if limit is None else min(1.0, limit / (ORIGINALS * kinds + strangers))

    def some(names: Sequence[str]) -> Sequence[str]:
        return names[: max(1, round(share * len(names)))]

    for name in some(parts.originals):
        image = read_rgb(data / name)
        for kind, edit in EDITS.items():
            edited = edit(image, random_source(kind, name))
            yield Query(_save(edited, folder, kind, name), kind, name, None)
        yield from _placed(data, parts, folder, name, name)
    for kind, names in (
        (STRANGER, parts.strangers),
        (SERIES_STRANGER, parts.series_strangers),
    ):
        for name in some(names):
            yield Query(_save(read_rgb(data / name), folder, kind, name), kind, None, None)
    for name in some(parts.strangers[:PLACED_STRANGERS]):
        yield from _placed(data, parts, folder, name, None)


def _placed(
    data: Path, parts: Split, folder: Path, name: str, original: str | None
) -> Iterator[Query]:
    """Put a picture into each kind of surroundings, none of which is stored."""
    image = read_rgb(data / name)
    elsewhere = [host for host in parts.calibration if Path(host).parent != Path(name).parent]
    for kind, place in PLACEMENTS.items():
        rng = random_source(kind, name)
        placed = place(image, rng, read_rgb(data / rng.choice(elsewhere)))
        label = kind if original else f"{STRANGER}_{kind}"
        file = _save(placed.image, folder, label, name)
        yield Query(file, label, original, placed.box if original else None)


def random_source(kind: str, name: str) -> random.Random:
    """Give the same randomness for the same edit of the same picture, on every machine."""
    return random.Random(f"{kind}/{name}")  # noqa: S311  # pictures, no secrets


def _save(image: Image.Image, folder: Path, kind: str, name: str) -> str:
    is_compressed = kind in {"jpeg_10", "noise"}  # a second JPEG would soften the one or the other
    file = (
        f"{kind}/{name.replace('/', '_').removesuffix('.jpg')}{'.png' if is_compressed else '.jpg'}"
    )
    (folder / kind).mkdir(exist_ok=True)
    if is_compressed:
        image.save(folder / file, compress_level=1)
    else:
        image.save(folder / file, quality=QUALITY)
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--limit", type=int, help="about how many queries; all without it")
    options = parser.parse_args()
    parts, folder, queries = prepare(options.data, options.limit)
    print(  # noqa: T201
        f"{len(parts.stored)} stored, {len(parts.originals)} originals, "
        f"{len(parts.strangers)} strangers, {len(parts.series_strangers)} of a stored series, "
        f"{len(parts.calibration)} for calibration, {len(queries)} queries in {folder.name}"
    )


if __name__ == "__main__":
    main()
