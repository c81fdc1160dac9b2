"""The elements benchmark: stored elements, photos that show them, and photos without elements.

    python -m imagesearch_services.models.elements.dataset --elements 1080

Textures, objects and posters are cropped from the data set or composed with it; repeating patterns
and logos are drawn with Simple Icons (CC0), which `npm pack` fetches once. The split depends only
on the names of the pictures, and everything else on fixed seeds, so every run makes the same
benchmark. Files and `manifest.json` are written to `.cache/elements/set-…`.

Parameters are tuned on the development edition. It has other elements at other places in photos,
and uses only those photos without elements that calibration uses.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from imagesearch_services.models.common.pictures import data_folder, random_source, read_pixels
from imagesearch_services.models.elements.drawing import Drawn, Pixels
from imagesearch_services.models.elements.photos import Photo, at_side, write_pixels
from imagesearch_services.models.elements.sources import (
    FOLDER,
    KINDS,
    Sources,
    draw_element,
    icon_paths,
)

SHARES = (0.18, 0.22, 0.17, 0.17, 0.13, 0.13)
"""Share of each kind among the elements and the queries."""
HOST_SIDES_PX = (800, 1280)
"""Range of the long side of a photo, in pixels."""
SECOND_ELEMENT = 0.12
"""Share of queries that show two elements."""
TWO_INSTANCES = 0.12
"""Share of queries that show an element twice."""
FOREIGN = 0.3
"""Share of the negatives that show an element that is not stored."""


@dataclass(frozen=True, slots=True)
class Edition:
    """A version of the benchmark; editions share no drawing and no place in a photo."""

    name: str
    first_number: int
    """Number of the first element of each kind."""
    stranger_step: int
    """Distance between the photos that the negatives use, in the list of strangers."""


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
    """An element in a photo; corners in pixels, clockwise from the top left of the element."""

    element: str
    corners: list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Query:
    """A photo to search with; a photo without appearances must have no match."""

    file: str
    kind: str
    """Kind of the first element; "plain" or "foreign" for negatives."""
    area: float
    """Share of the photo that the first element covers."""
    appearances: list[Appearance]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The stored elements, the queries, and the photos without stored elements."""

    folder: Path
    elements: Sequence[Element]
    queries: Sequence[Query]
    negatives: Sequence[Query]


def prepare(
    elements: int,
    queries: int,
    negatives: int,
    *,
    edition: Edition = REPORTED,
    data: Path | None = None,
) -> Benchmark:
    """Make a benchmark with these numbers of pictures, unless it exists."""
    folder = FOLDER / f"set-{edition.name}-{elements}-{queries}-{negatives}-{_fingerprint()}"
    manifest = folder / "manifest.json"
    if not manifest.exists():
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("elements", "queries", "negatives"):
            (folder / name).mkdir(parents=True)
        sources = Sources.split(data or data_folder(), icon_paths())
        made = list(_elements(sources, elements, edition))
        written = {
            "elements": [asdict(_stored(folder, *element)) for element in made],
            "queries": [
                asdict(query) for query in _queries(sources, folder, made, queries, edition)
            ],
            "negatives": [
                asdict(query) for query in _negatives(sources, folder, negatives, edition)
            ],
        }
        manifest.write_text(json.dumps(written))
    read = json.loads(manifest.read_text())
    return Benchmark(
        folder,
        [Element(**fields) for fields in read["elements"]],
        [_query(fields) for fields in read["queries"]],
        [_query(fields) for fields in read["negatives"]],
    )


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
    by_kind = {kind: [element for element in made if element[0] == kind] for kind in KINDS}
    row = 0
    for kind, count in _counts(total):
        for turn in range(count):
            rng = random_source("query", kind, edition.first_number + turn)
            of_kind = by_kind[kind]
            chosen = [of_kind[turn * max(1, len(of_kind) // max(1, count)) % len(of_kind)]]
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
            # Negative numbers select icons that no stored element shows.
            kind = "foreign"
            drawn_kind = rng.choice(["logo_tile", "logo_glyph", "repeat"])
            number = -1 - (row - first_foreign) * edition.stranger_step
            photo.paste(draw_element(drawn_kind, sources, number).pasted)
        file = f"negatives/{row:04d}.jpg"
        write_pixels(folder / file, photo.pixels, quality=rng.randint(55, 92))
        yield Query(file, kind, 0.0, [])


def _host(photo: Path, rng: random.Random) -> Pixels:
    return at_side(read_pixels(photo), rng.randint(*HOST_SIDES_PX)).copy()


def _query(fields: dict[str, object]) -> Query:
    appearances = [
        Appearance(appearance["element"], [(x, y) for x, y in appearance["corners"]])
        for appearance in fields.pop("appearances")  # type: ignore[attr-defined]
    ]
    return Query(**fields, appearances=appearances)  # type: ignore[arg-type]


def _fingerprint() -> str:
    """Return a hash of the code that determines the benchmark."""
    here = Path(__file__).parent
    files = [here / name for name in ("drawing.py", "photos.py", "sources.py", "dataset.py")]
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
    print(
        f"{len(made.elements)} elements, {len(made.queries)} queries, "
        f"{len(made.negatives)} negatives in {made.folder}"
    )


if __name__ == "__main__":
    main()
