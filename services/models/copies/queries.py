"""The queries of the copies benchmark: edited copies of stored pictures, and strangers.

    python -m imagesearch_services.models.copies.queries --data ../shared/data

A stranger is a picture whose original is not stored. Split and edits depend only on the names of
the pictures, so every run makes the same queries. They are written once to
`.cache/copies/queries-…` with a manifest in JSON lines: file, kind, original (null for strangers),
true box of the copy (null if the whole picture was edited).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from imagesearch_services.models.common.pictures import (
    CACHE,
    all_names,
    data_folder,
    random_source,
    read_rgb,
)
from imagesearch_services.models.copies import split as split_module
from imagesearch_services.models.copies.edits import EDITS
from imagesearch_services.models.copies.placements import PLACEMENTS, PixelBox
from imagesearch_services.models.copies.split import ORIGINALS, RELATED, Split, split

FOLDER = CACHE / "copies"
PLACED_STRANGERS = 100
"""Number of strangers in each kind of placement."""
STRANGER = "stranger"
SERIES_STRANGER = "stranger_of_a_stored_series"
QUALITY = 92
"""JPEG quality of query files, except of the `LOSSLESS` kinds."""
LOSSLESS = frozenset({"jpeg_10", "noise"})
"""Edits whose files are PNG, because a second JPEG compression would soften them."""


@dataclass(frozen=True, slots=True)
class Query:
    """A line of the manifest."""

    file: str
    """Path relative to the folder of the manifest."""
    kind: str
    """Name of the edit, of the placement, or of the kind of stranger."""
    original: str | None
    """The stored picture to be found; None for strangers."""
    box: PixelBox | None
    """True box of the copy, for placements."""

    @property
    def is_stranger(self) -> bool:
        return self.original is None


def prepare(data: Path, limit: int | None = None) -> tuple[Split, Path, list[Query]]:
    """Make the queries, unless they exist.

    Args:
        data: Folder of the data set.
        limit: Approximate number of queries; None for all.

    Returns:
        The split, the folder of the queries, and the queries.
    """
    parts = split(all_names(data))
    folder = FOLDER / f"queries-{limit or 'all'}-{_fingerprint()}"
    manifest = folder / "manifest.jsonl"
    if not manifest.exists():
        folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(asdict(query)) for query in _make(data, parts, folder, limit)]
        manifest.write_text("\n".join(lines) + "\n")
    return parts, folder, list(read_manifest(manifest))


def read_manifest(manifest: Path) -> Iterator[Query]:
    """Read the queries of a manifest."""
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
    """Return a hash of the code and data that determine the queries."""
    here = Path(__file__).parent
    code = [here / "edits.py", here / "placements.py", Path(split_module.__file__), Path(__file__)]
    sources = [*code, RELATED]
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
    """Yield a query for each kind of placement of a picture; the host pictures are not stored."""
    image = read_rgb(data / name)
    elsewhere = [host for host in parts.calibration if Path(host).parent != Path(name).parent]
    for kind, place in PLACEMENTS.items():
        rng = random_source(kind, name)
        placed = place(image, rng, read_rgb(data / rng.choice(elsewhere)))
        label = kind if original else f"{STRANGER}_{kind}"
        file = _save(placed.image, folder, label, name)
        yield Query(file, label, original, placed.box if original else None)


def _save(image: Image.Image, folder: Path, kind: str, name: str) -> str:
    is_lossless = kind in LOSSLESS
    stem = name.replace("/", "_").removesuffix(".jpg")
    file = f"{kind}/{stem}{'.png' if is_lossless else '.jpg'}"
    (folder / kind).mkdir(exist_ok=True)
    if is_lossless:
        image.save(folder / file, compress_level=1)
    else:
        image.save(folder / file, quality=QUALITY)
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--limit", type=int, help="approximate number of queries (default: all)")
    options = parser.parse_args()
    parts, folder, queries = prepare(options.data, options.limit)
    print(
        f"{len(parts.stored)} stored, {len(parts.originals)} originals, "
        f"{len(parts.strangers)} strangers, {len(parts.series_strangers)} of a stored series, "
        f"{len(parts.calibration)} for calibration, {len(queries)} queries in {folder.name}"
    )


if __name__ == "__main__":
    main()
