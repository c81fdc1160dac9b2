"""Pictures of the data set, with edited copies of every fifth picture.

The edit of a picture depends only on its name. The copies, the embeddings and the thumbnails are
made once and cached in `.cache/duplicates`. Embeddings are computed with the decoding and
preprocessing of the Embedding service.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imagesearch_services.embedding.pictures.picture_file import PictureFile
from imagesearch_services.embedding.pictures.thumbnails import thumbnail
from imagesearch_services.gateway.model import THUMBNAIL_SIDE_PX
from imagesearch_services.models.common.embedder import COPY_MODEL, Embedder
from imagesearch_services.models.common.pictures import CACHE, all_names, random_source, read_rgb
from imagesearch_services.models.copies.edits import EDITS
from imagesearch_services.models.copies.queries import LOSSLESS, QUALITY

Floats = npt.NDArray[np.float32]

FOLDER = CACHE / "duplicates"
KNOWN_DUPLICATES = Path(__file__).with_name("known_duplicates.json")
"""Groups of duplicates in the data set itself."""
PICTURES = 5000
"""Default number of pictures from the data set."""
COPY_INTERVAL = 5
"""Number of pictures per edited copy; copies are spread evenly over the list of pictures."""


@dataclass(frozen=True, slots=True)
class Copy:
    """An edited copy of a picture."""

    name: str
    """File name, relative to `FOLDER`."""
    original: str
    """Name of the picture."""
    kind: str
    """Name of the edit."""


@dataclass(frozen=True, slots=True)
class PictureSet:
    """Pictures and copies with their embeddings."""

    names: Sequence[str]
    """Names of the pictures, relative to the data folder."""
    copies: Sequence[Copy]
    vectors: Floats
    """Unit vectors of the pictures, then of the copies: float32 [pictures + copies, 512]."""

    @property
    def all_names(self) -> list[str]:
        """Names of the pictures, then of the copies."""
        return [*self.names, *(copy.name for copy in self.copies)]

    def files(self, data: Path) -> list[Path]:
        """Return the files of the pictures, then of the copies."""
        return [
            *(data / name for name in self.names),
            *(FOLDER / copy.name for copy in self.copies),
        ]

    def first(self, count: int) -> PictureSet:
        """Return the first pictures and their copies."""
        names = set(self.names[:count])
        rows = [*range(min(count, len(self.names)))]
        copies = []
        for row, copy in enumerate(self.copies, len(self.names)):
            if copy.original in names:
                rows.append(row)
                copies.append(copy)
        return PictureSet(self.names[:count], copies, self.vectors[rows])


@dataclass(frozen=True, slots=True)
class StoredPicture:
    """The data that the suite stores for a picture in addition to its embedding."""

    thumbnail: bytes
    """JPEG file."""
    width: int
    height: int
    size_bytes: int
    sha256: str


def load_pictures(data: Path, count: int = PICTURES) -> PictureSet:
    """Return the first pictures of the data set with their copies; make missing ones."""
    names = all_names(data)[:count]
    kinds = list(EDITS)
    copies = [
        Copy(_file_name(kinds[number % len(kinds)], name), name, kinds[number % len(kinds)])
        for number, name in enumerate(names[::COPY_INTERVAL])
    ]
    for copy in copies:
        _make(copy, data)
    return PictureSet(
        names,
        copies,
        np.concatenate(
            [
                _embed({name: data / name for name in names}, FOLDER / "data.npz"),
                _embed({copy.name: FOLDER / copy.name for copy in copies}, FOLDER / "copies.npz"),
            ]
        ),
    )


def stored_pictures(pictures: PictureSet, data: Path) -> Iterator[StoredPicture]:
    """Yield the stored data of each picture, then of each copy."""
    folder = FOLDER / "thumbnails"
    for name, file in zip(pictures.all_names, pictures.files(data), strict=True):
        content = file.read_bytes()
        opened = PictureFile(content)
        cache = folder / f"{name.replace('/', '_')}.jpg"
        if not cache.exists():
            cache.parent.mkdir(parents=True, exist_ok=True)
            cache.write_bytes(thumbnail(opened.decode().image, THUMBNAIL_SIDE_PX))
        yield StoredPicture(
            cache.read_bytes(),
            opened.width,
            opened.height,
            len(content),
            hashlib.sha256(content).hexdigest(),
        )


def known_duplicates() -> list[frozenset[str]]:
    """Return the groups of duplicates in the data set itself, which were found by eye."""
    groups = json.loads(KNOWN_DUPLICATES.read_text())
    return [frozenset(group) for group in groups["same"]]


def _file_name(kind: str, name: str) -> str:
    stem = name.replace("/", "_").removesuffix(".jpg")
    return f"{kind}/{stem}{'.png' if kind in LOSSLESS else '.jpg'}"


def _make(copy: Copy, data: Path) -> None:
    """Write the file of a copy unless it exists."""
    file = FOLDER / copy.name
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    edit = EDITS[copy.kind]
    edited = edit(read_rgb(data / copy.original), random_source(copy.kind, copy.original))
    draft = file.with_name(f"draft{file.suffix}")
    if copy.kind in LOSSLESS:
        edited.save(draft, compress_level=1)
    else:
        edited.save(draft, quality=QUALITY)
    draft.rename(file)


def _embed(files: Mapping[str, Path], cache: Path) -> Floats:
    """Return the embeddings of files, float32 [files, 512], from the cache where it has them."""
    known: dict[str, Floats] = {}
    if cache.exists():
        with np.load(cache) as cached:
            known.update(zip(cached["names"].tolist(), cached["vectors"], strict=True))
    missing = [name for name in files if name not in known]
    if missing:
        embedder = Embedder(COPY_MODEL)
        known.update((name, embedder.embed(files[name].read_bytes())) for name in missing)
        np.savez(cache, names=list(known), vectors=np.stack(list(known.values())))
    return np.stack([known[name] for name in files])
