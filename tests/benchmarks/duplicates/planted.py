"""The pictures of the benchmark: those of the data folder, and edited copies planted among them.

Which picture is edited in which way follows from the names alone. The copies are written once to
`.cache/duplicates`, and all embeddings are kept there, made by the suite's own decoding and
preprocessing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imagesearch_services.embedding.pictures import PictureFile
from imagesearch_services.embedding.thumbnails import thumbnail
from imagesearch_services.gateway.model import THUMBNAIL_SIDE_PX
from imagesearch_services.models.common.embedder import COPY_MODEL, Embedder
from imagesearch_services.models.common.pictures import CACHE, all_names, random_source, read_rgb
from imagesearch_services.models.copies.edits import EDITS
from imagesearch_services.models.copies.queries import QUALITY

Floats = npt.NDArray[np.float32]

FOLDER = CACHE / "duplicates"
PICTURES = 5000
ONE_IN = 5
"""Every fifth picture gets a copy, so that any beginning of the list has its share."""
LOSSLESS = frozenset({"jpeg_10", "noise"})
"""Edits that a second JPEG would soften."""


@dataclass(frozen=True, slots=True)
class Copy:
    """An edited copy of a picture."""

    name: str
    """Of its file, under `FOLDER`."""
    original: str
    kind: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """What is stored: names and copies, and the embedding of each."""

    names: Sequence[str]
    copies: Sequence[Copy]
    vectors: Floats
    """Unit length, [names + copies, 512], names first."""

    def first(self, count: int) -> Pictures:
        """Give the first pictures and the copies of those."""
        kept = set(self.names[:count])
        rows = [*range(count)]
        copies = []
        for row, copy in enumerate(self.copies, len(self.names)):
            if copy.original in kept:
                rows.append(row)
                copies.append(copy)
        return Pictures(self.names[:count], copies, self.vectors[rows])


def pictures(data: Path) -> Pictures:
    """Give all pictures of the benchmark, made and embedded where they are not there yet."""
    names = all_names(data)[:PICTURES]
    kinds = list(EDITS)
    copies = [
        Copy(_file_name(kinds[number % len(kinds)], name), name, kinds[number % len(kinds)])
        for number, name in enumerate(names[::ONE_IN])
    ]
    for copy in copies:
        _make(copy, data)
    return Pictures(names, copies, np.concatenate([_of_data(data, names), _of_copies(copies)]))


def _file_name(kind: str, name: str) -> str:
    stem = name.replace("/", "_").removesuffix(".jpg")
    return f"{kind}/{stem}{'.png' if kind in LOSSLESS else '.jpg'}"


def _make(copy: Copy, data: Path) -> None:
    file = FOLDER / copy.name
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    edited = EDITS[copy.kind](
        read_rgb(data / copy.original), random_source(copy.kind, copy.original)
    )
    draft = file.with_name(f"draft{file.suffix}")
    if copy.kind in LOSSLESS:
        edited.save(draft, compress_level=1)
    else:
        edited.save(draft, quality=QUALITY)
    draft.rename(file)


def _of_data(data: Path, names: Sequence[str]) -> Floats:
    """Embed the data's pictures; those that the copies benchmark embedded are taken from there."""
    known: dict[str, Floats] = {}
    for file in (FOLDER / "data.npz", *sorted((CACHE / "copies").glob("*-sscd.npz"))):
        if file.exists():
            with np.load(file) as kept:
                if "names" in kept:
                    known.update(zip(kept["names"].tolist(), kept["vectors"], strict=True))
    return _embedded({name: data / name for name in names}, known, FOLDER / "data.npz")


def _of_copies(copies: Sequence[Copy]) -> Floats:
    known: dict[str, Floats] = {}
    file = FOLDER / "copies.npz"
    if file.exists():
        with np.load(file) as kept:
            known.update(zip(kept["names"].tolist(), kept["vectors"], strict=True))
    return _embedded({copy.name: FOLDER / copy.name for copy in copies}, known, file)


def _embedded(files: dict[str, Path], known: dict[str, Floats], cache: Path) -> Floats:
    missing = [name for name in files if name not in known]
    if missing:
        embedder = Embedder(COPY_MODEL)
        known.update((name, embedder.whole(files[name].read_bytes())) for name in missing)
        np.savez(cache, names=list(files), vectors=np.stack([known[name] for name in files]))
    return np.stack([known[name] for name in files])


@dataclass(frozen=True, slots=True)
class SmallPicture:
    """What the suite keeps of a file besides its embedding."""

    thumbnail: bytes
    width: int
    height: int
    size_bytes: int
    sha256: str


def thumbnails(names: Sequence[str], files: Sequence[Path]) -> Iterator[SmallPicture]:
    """Make the small picture of each file, as the suite does when it is added; kept for later."""
    folder = FOLDER / "thumbnails"
    for name, file in zip(names, files, strict=True):
        content = file.read_bytes()
        opened = PictureFile(content)
        kept = folder / f"{name.replace('/', '_')}.jpg"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(thumbnail(opened.decode().image, THUMBNAIL_SIDE_PX))
        yield SmallPicture(
            kept.read_bytes(),
            opened.width,
            opened.height,
            len(content),
            hashlib.sha256(content).hexdigest(),
        )


def repeats() -> list[frozenset[str]]:
    """Give the groups of pictures of the data that are repeats of one another, found by eye."""
    groups = json.loads((Path(__file__).parent / "repeats.json").read_text())
    return [frozenset(group) for group in groups["same"]]
