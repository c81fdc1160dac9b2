"""The things that the dense descriptor learns to find.

A thing (an instance, in the terms of instance discrimination) is a photo, a crop of a photo, or a
drawing. Pictures that the benchmarks use are excluded from training (`learned_photos`).
"""

from __future__ import annotations

import pickle
import random
from dataclasses import dataclass
from pathlib import Path

from imagesearch_services.models.common.pictures import CACHE, all_names, read_pixels
from imagesearch_services.models.dense.drawings import draw_all
from imagesearch_services.models.dense.pixels import Picture, crop, decode, encode

FOLDER = CACHE / "dense"
"""Default folder of intermediate results."""
ORIGINALS = (1190, 1420)
"""Range of ranks, in the order of `all_names`, of the originals of the copies benchmark."""
CROPS_PER_PHOTO = 4
GLYPH_KINDS = {"glyph", "word"}
"""Kinds that are identified by their shape alone, not by their color."""


@dataclass(frozen=True)
class Thing:
    kind: str
    photo: str | None
    """Name of the photo that the thing is cropped from; None for drawings."""
    box: tuple[float, float, float, float]
    """x_min, y_min, x_max, y_max in the photo, each from 0 to 1."""
    drawn: bytes | None
    """The drawing as WebP, with an alpha channel if it has no background; None for photos."""

    def picture(self, photo: Picture | None) -> Picture:
        """Return the picture of the thing: a crop of its photo, or the decoded drawing.

        Args:
            photo: The photo `self.photo`; None for drawings.
        """
        if photo is not None:
            return crop(photo, self.box)
        if self.drawn is None:
            raise ValueError(f"the photo {self.photo} of this {self.kind} was not passed")
        return decode(self.drawn)

    def read(self, data: Path) -> Picture:
        """Return the picture of the thing, with the photo read from the data set."""
        return self.picture(None if self.photo is None else read_pixels(data / self.photo))


def learned_photos(data: Path) -> list[str]:
    """Return the names of the training photos.

    They exclude the originals and strangers of the copies benchmark, and the photos from which the
    elements benchmark crops its elements. They include 200 street photos that the elements
    benchmark uses as hosts, and photos that the copies benchmark stores but does not query.
    """
    names = all_names(data)
    rank = {name: place for place, name in enumerate(names)}
    by_kind = {
        kind: [name for name in names if name.startswith(kind)]
        for kind in ("garments", "street", "grocery/shelf")
    }
    chosen = [
        *by_kind["garments"][320:1200],
        *by_kind["street"][220:420],
        *by_kind["grocery/shelf"][:260],
    ]
    return [name for name in chosen if not ORIGINALS[0] <= rank[name] < ORIGINALS[1]]


def make_things(data: Path, icons: Path, clip_art: Path) -> list[Thing]:
    """Make all things from a fixed seed, in random order (drawings: `drawings.draw_all`)."""
    rng = random.Random(20)
    things = []
    for name in learned_photos(data):
        things.append(Thing("photo", name, (0, 0, 1, 1), None))
        for _ in range(CROPS_PER_PHOTO):
            side, aspect = rng.uniform(0.22, 0.7), rng.uniform(0.7, 1.4)
            width, height = min(1, side * aspect), min(1, side / aspect)
            x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
            things.append(Thing("crop", name, (x, y, x + width, y + height), None))
    for kind, pictures in draw_all(icons, clip_art, rng).items():
        things += [Thing(kind, None, (0, 0, 1, 1), encode(picture)) for picture in pictures]
    rng.shuffle(things)
    return things


def keep_things(data: Path, work: Path, icons: Path, clip_art: Path) -> None:
    """Make and save the things, unless they exist."""
    if not _file(work).exists():
        things = make_things(data, icons, clip_art)
        _file(work).write_bytes(pickle.dumps(things))


def read_things(work: Path) -> list[Thing]:
    """Read all saved things."""
    with _file(work).open("rb") as stream:
        things: list[Thing] = pickle.load(stream)  # noqa: S301  # written by `keep_things`
    return things


def _file(work: Path) -> Path:
    return work / "things.pickle"
