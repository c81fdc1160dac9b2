"""Discovery of the picture files to add, and their image ids."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

EXTENSIONS = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif",
        ".tiff", ".avif",
    }
)  # fmt: skip
"""Extensions of the files added from folders. Files given by name are added in any case."""

BATCH_COUNT = 16
"""Maximum pictures per call."""
BATCH_BYTES = 24 * 1024 * 1024
"""Maximum size of the pictures per call, in bytes: with tags they fit in a message of 32 MiB."""

UNSAFE = re.compile(r"[/%\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters to escape: those that an image id cannot contain, and the escape character %."""


@dataclass(frozen=True)
class Picture:
    """A file to add."""

    path: Path
    image_id: str
    size_bytes: int


@dataclass
class Found:
    """The files found at the given paths."""

    pictures: list[Picture] = field(default_factory=list)
    rejected: list[tuple[Path, str]] = field(default_factory=list)
    """Files that cannot be added, each with the reason."""
    skipped_count: int = 0
    """Number of files in folders whose extension is not in `EXTENSIONS`."""


def image_id(relative: Path) -> str:
    """Return the image id of a relative path: the path with its unsafe characters escaped.

    >>> image_id(Path("2024/100% me.jpg"))
    '2024%2F100%25 me.jpg'
    """
    return UNSAFE.sub(_escape, relative.as_posix())


def find_pictures(paths: Iterable[Path]) -> Found:
    """Find the pictures among files and in folders, in a stable order, without hidden files."""
    found = Found()
    first: dict[str, Path] = {}
    for path, relative in _files(paths, found):
        try:
            size_bytes = path.stat().st_size
        except OSError as error:
            found.rejected.append((path, error.strerror or str(error)))
            continue
        picture = Picture(path, image_id(relative), size_bytes)
        other = first.setdefault(picture.image_id, path)
        if other is path:
            found.pictures.append(picture)
        else:
            found.rejected.append((path, f"{other} has the same image id {picture.image_id!r}"))
    return found


def batches(pictures: Iterable[Picture]) -> Iterator[Sequence[Picture]]:
    """Split pictures into batches that fit in one call."""
    batch: list[Picture] = []
    for picture in pictures:
        size_bytes = sum(member.size_bytes for member in batch) + picture.size_bytes
        if batch and (len(batch) == BATCH_COUNT or size_bytes > BATCH_BYTES):
            yield batch
            batch = []
        batch.append(picture)
    if batch:
        yield batch


def _files(paths: Iterable[Path], found: Found) -> Iterator[tuple[Path, Path]]:
    """Yield each file with its path relative to the given folder. Count skipped files."""
    for path in paths:
        if not path.is_dir():
            yield path, Path(path.name)
            continue
        for file in _walk(path):
            if file.suffix.lower() in EXTENSIONS:
                yield file, file.relative_to(path)
            else:
                found.skipped_count += 1


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(parent, name)


def _escape(match: re.Match[str]) -> str:
    return urllib.parse.quote(match[0], safe="", errors="surrogateescape")
