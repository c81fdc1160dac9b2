"""What the dense descriptor learns from: things to find, with the teacher's vector of each.

A thing is a photo, a part of one, or something drawn: a glyph, an emoji, clip art, a pattern, a
poster. What the benchmarks measure on is never learned from: see `learned_photos`.
"""

from __future__ import annotations

import json
import pickle
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime

from imagesearch_services.models.common.embedder import COPY_MODEL, VERSION
from imagesearch_services.models.common.pictures import CACHE, all_names
from imagesearch_services.models.common.prepared import weights_file

Vectors = npt.NDArray[np.float16]
Picture = npt.NDArray[np.uint8]
"""RGB, or RGB and opacity, [height, width, 3 or 4]."""

FOLDER = CACHE / "dense"
"""Default folder of intermediate results."""
ORIGINALS = (1190, 1420)
"""Places by the hash of the name where the copies benchmark takes what it edits."""
CROPS_PER_PHOTO = 4
DRAWN = {"glyph": 1100, "emoji": 450, "clip_art": 850, "pattern": 450, "poster": 350, "word": 250}
SIDE_PX = 288
"""Of the teacher's input."""
DRAWN_PX = 256
WEBP = (cv2.IMWRITE_WEBP_QUALITY, 92)
BATCH = 8
KEPT_EVERY = 200


@dataclass(frozen=True)
class Thing:
    kind: str
    photo: str | None
    """Name of the photo that it is (a part of); None: it was drawn."""
    box: tuple[float, float, float, float]
    """x_min, y_min, x_max, y_max in the photo, each from 0 to 1."""
    drawn: bytes | None
    """WebP, with opacity where it has no ground of its own."""


def learned_photos(data: Path) -> list[str]:
    """Names of the photos to learn from.

    None of them is edited into a query of the copies benchmark, is a stranger there, or gives an
    element of the elements benchmark. 200 street photos are what that one pastes elements into, and
    some are stored by the other one, where nothing asks for them.
    """
    names = all_names(data)
    rank = {name: place for place, name in enumerate(names)}
    of = {
        kind: [name for name in names if name.startswith(kind)]
        for kind in ("garments", "street", "grocery/shelf")
    }
    found = of["garments"][320:1200] + of["street"][220:420] + of["grocery/shelf"][:260]
    return [name for name in found if not ORIGINALS[0] <= rank[name] < ORIGINALS[1]]


def read(file: Path) -> Picture:
    pixels = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if pixels is None:
        raise FileNotFoundError(file)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def cut(photo: Picture, box: tuple[float, float, float, float]) -> Picture:
    height, width = photo.shape[:2]
    x_min, y_min, x_max, y_max = box
    return photo[
        round(y_min * height) : max(round(y_max * height), round(y_min * height) + 8),
        round(x_min * width) : max(round(x_max * width), round(x_min * width) + 8),
    ]


def decode(drawn: bytes) -> Picture:
    found = cv2.imdecode(np.frombuffer(drawn, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None:
        raise ValueError("not a picture")
    code = cv2.COLOR_BGRA2RGBA if found.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(found, code), np.uint8)


def encode(picture: Picture) -> bytes:
    code = cv2.COLOR_RGBA2BGRA if picture.shape[2] == 4 else cv2.COLOR_RGB2BGR
    return bytes(cv2.imencode(".webp", cv2.cvtColor(picture, code), WEBP)[1])


def on_ground(
    picture: Picture, colour: tuple[int, int, int] = (255, 255, 255), margin: float = 0.1
) -> Picture:
    """Puts what has opacity on a plain ground, with a margin; else gives it back."""
    if picture.shape[2] == 3:
        return picture
    height, width = picture.shape[:2]
    border = round(margin * max(height, width))
    ground = np.full((height + 2 * border, width + 2 * border, 3), colour, np.float32)
    inner = ground[border : border + height, border : border + width]
    opacity = picture[..., 3:].astype(np.float32) / 255
    inner[:] = picture[..., :3] * opacity + inner * (1 - opacity)
    return ground.astype(np.uint8)


def painted(glyph: Picture, colour: tuple[int, int, int]) -> Picture:
    found = glyph.copy()
    found[..., :3] = colour
    return found


def make_things(data: Path, icons: Path, clip_art: Path) -> list[Thing]:
    """Everything, by a fixed seed.

    Args:
        data: The folder of the photos.
        icons: A folder with mdi.json, ph.json, noto.json and fluent-emoji-flat.json, as the
            packages `@iconify-json/…` bring them (Apache-2.0, MIT, Apache-2.0, MIT).
        clip_art: The folder of Debian's `openclipart-png` (public domain), unpacked.
    """
    chance = random.Random(20)
    things = []
    for name in learned_photos(data):
        things.append(Thing("photo", name, (0, 0, 1, 1), None))
        for _ in range(CROPS_PER_PHOTO):
            side, aspect = chance.uniform(0.22, 0.7), chance.uniform(0.7, 1.4)
            width, height = min(1, side * aspect), min(1, side / aspect)
            x, y = chance.uniform(0, 1 - width), chance.uniform(0, 1 - height)
            things.append(Thing("crop", name, (x, y, x + width, y + height), None))
    drawn = draw_glyphs(icons, chance)
    drawn |= {"clip_art": read_clip_art(clip_art, chance)}
    drawn |= {"pattern": [draw_pattern(drawn, chance) for _ in range(DRAWN["pattern"])]}
    drawn |= {"word": [draw_word(chance) for _ in range(DRAWN["word"])]}
    drawn |= {"poster": [draw_poster(drawn, chance) for _ in range(DRAWN["poster"])]}
    for kind, pictures in drawn.items():
        things += [Thing(kind, None, (0, 0, 1, 1), encode(picture)) for picture in pictures]
    # So that the first so many are some of everything.
    chance.shuffle(things)
    return things


def _svg(icon: dict[str, object], icons: dict[str, object]) -> str:
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{DRAWN_PX}" height="{DRAWN_PX}" color="black">'
        f"{icon['body']}</svg>"
    )


def _rendered(svg: str) -> Picture | None:
    import resvg_py  # noqa: PLC0415 needed for this alone

    found = decode(bytes(resvg_py.svg_to_bytes(svg_string=svg)))
    opacity = found[..., 3] > 8
    if opacity.mean() < 0.04:
        return None
    rows, columns = np.flatnonzero(opacity.any(1)), np.flatnonzero(opacity.any(0))
    return found[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def draw_glyphs(icons: Path, chance: random.Random) -> dict[str, list[Picture]]:
    found: dict[str, list[Picture]] = {}
    for kind, files in (("glyph", ("mdi", "ph")), ("emoji", ("noto", "fluent-emoji-flat"))):
        found[kind] = []
        for file in files:
            collection = json.loads((icons / f"{file}.json").read_text())
            names = [
                name
                for name in sorted(collection["icons"])
                if not any(part in name for part in ("logo", "thin", "light", "duotone", "outline"))
            ]
            chance.shuffle(names)
            of_file: list[Picture] = []
            for name in names:
                picture = _rendered(_svg(collection["icons"][name], collection))
                if picture is not None:
                    of_file.append(picture)
                if len(of_file) == DRAWN[kind] // 2:
                    break
            found[kind] += of_file
    return found


def read_clip_art(folder: Path, chance: random.Random) -> list[Picture]:
    files = [file for file in sorted(folder.rglob("*.png")) if "-theme" not in str(file)]
    chance.shuffle(files)
    found: list[Picture] = []
    for file in files:
        picture = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        if picture is None or picture.ndim != 3 or min(picture.shape[:2]) < 64:
            continue
        factor = DRAWN_PX / max(picture.shape[:2])
        size = [max(16, round(side * factor)) for side in picture.shape[1::-1]]
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        found.append(decode(bytes(cv2.imencode(".png", picture)[1])))
        if len(found) == DRAWN["clip_art"]:
            break
    return found


def colour(chance: random.Random) -> tuple[int, int, int]:
    kind = chance.random()
    if kind < 0.15:
        return (chance.randint(0, 30),) * 3
    if kind < 0.3:
        return (chance.randint(225, 255),) * 3
    return chance.randint(0, 255), chance.randint(0, 255), chance.randint(0, 255)


def contrasting(other: tuple[float, ...], chance: random.Random) -> tuple[int, int, int]:
    for _ in range(20):
        found = colour(chance)
        if abs(float(np.mean(found)) - float(np.mean(other))) > 70:
            return found
    return (0, 0, 0) if np.mean(other) > 127 else (255, 255, 255)


def over(ground: Picture, picture: npt.NDArray[Any], x: int, y: int) -> None:
    """Paints where both are, in place."""
    height, width = ground.shape[:2]
    top, left = max(0, -y), max(0, -x)
    part = picture[top : max(top, min(picture.shape[0], height - y)),
                   left : max(left, min(picture.shape[1], width - x))]  # fmt: skip
    if not part.size:
        return
    rows = slice(max(0, y), max(0, y) + part.shape[0])
    columns = slice(max(0, x), max(0, x) + part.shape[1])
    opacity = part[..., 3:].astype(np.float32) / 255
    ground[rows, columns] = part[..., :3] * opacity + ground[rows, columns] * (1 - opacity)


def draw_pattern(drawn: dict[str, list[Picture]], chance: random.Random) -> Picture:
    """A motif again and again, or stripes, checks and waves."""
    ground_colour = colour(chance)
    ground = np.full((SIDE_PX, SIDE_PX, 3), ground_colour, np.uint8)
    if chance.random() < 0.65:
        motifs = []
        for _ in range(chance.choice([1, 1, 2, 3])):
            kind = chance.choice(["glyph", "glyph", "emoji", "clip_art"])
            motif = chance.choice(drawn[kind])
            if motif.shape[2] == 3:
                motif = np.dstack([motif, np.full(motif.shape[:2], 255, np.uint8)])
            if kind == "glyph":
                motif = painted(motif, contrasting(ground_colour, chance))
            factor = chance.uniform(28, 80) / max(motif.shape[:2])
            size = [max(6, round(side * factor)) for side in motif.shape[1::-1]]
            motifs.append(cv2.resize(motif, size, interpolation=cv2.INTER_AREA))
        pitch_x, pitch_y = chance.randint(36, 100), chance.randint(36, 100)
        shift = chance.choice([0, 0, pitch_x // 2])
        for row, y in enumerate(range(-20, SIDE_PX, pitch_y)):
            for column, x in enumerate(range(-60 + shift * (row % 2), SIDE_PX, pitch_x)):
                over(ground, motifs[(row + column) % len(motifs)], x, y)
        return ground
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX].astype(np.float32)
    angle = chance.choice([0, np.pi / 2, chance.uniform(0, np.pi)])
    along = columns * np.cos(angle) + rows * np.sin(angle)
    across = rows * np.cos(angle) - columns * np.sin(angle)
    for _ in range(chance.randint(1, 3)):
        period, share = chance.uniform(10, 70), chance.uniform(0.2, 0.6)
        bend = chance.choice([0, 0, chance.uniform(3, 15)])
        bent = along + bend * np.sin(across * 2 * np.pi / chance.uniform(30, 120))
        mask = (bent / period) % 1 < share
        if chance.random() < 0.5:
            mask ^= (across / (period * chance.uniform(0.5, 2))) % 1 < chance.uniform(0.2, 0.6)
        ground[mask] = contrasting(ground_colour, chance)
    return ground


FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
)  # fmt: skip
SYLLABLES = (
    *("ka", "lo", "mi", "ne", "ra", "sto", "vi", "zen", "tor", "el"),
    *("ix", "ana", "bru", "go", "pel", "qui", "fa", "dy", "mo", "sun"),
)


def word(chance: random.Random) -> str:
    found = "".join(chance.choices(SYLLABLES, k=chance.randint(1, 3)))
    return chance.choice([found, found.title(), found.upper()])


def draw_word(chance: random.Random) -> Picture:
    """A made-up name in one colour, without ground."""
    font, thickness = chance.choice(FONTS), chance.randint(3, 12)
    text = word(chance)
    (width, height), below = cv2.getTextSize(text, font, 3, thickness)
    mask: Picture = np.zeros((height + below + 24, width + 24), np.uint8)
    cv2.putText(mask, text, (12, height + 8), font, 3, 255, thickness, cv2.LINE_AA)
    factor = DRAWN_PX / max(mask.shape)
    size = [max(24, round(side * factor)) for side in mask.shape[::-1]]
    mask = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_AREA), np.uint8)
    return np.dstack([np.full((*mask.shape, 3), colour(chance), np.uint8), mask])


def draw_poster(drawn: dict[str, list[Picture]], chance: random.Random) -> Picture:
    """Words, shapes and pictures on a ground: a label, a poster, a card."""
    width, height = chance.randint(200, 288), chance.randint(200, 288)
    ground_colour = colour(chance)
    ground = np.full((height, width, 3), ground_colour, np.uint8)
    for _ in range(chance.randint(1, 4)):
        x, y = chance.randint(-40, width), chance.randint(-40, height)
        extent = chance.randint(20, 160)
        if chance.random() < 0.5:
            cv2.circle(ground, (x, y), extent // 2, colour(chance), -1, cv2.LINE_AA)
        else:
            end = (x + extent, y + chance.randint(10, 160))
            cv2.rectangle(ground, (x, y), end, colour(chance), -1)
    for _ in range(chance.randint(1, 5)):
        kind = chance.choice(["glyph", "emoji", "clip_art", "word", "word"])
        picture = chance.choice(drawn[kind])
        if picture.shape[2] == 3:
            picture = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
        if kind in {"glyph", "word"}:
            picture = painted(picture, contrasting(ground_colour, chance))
        factor = chance.uniform(50, 180) / max(picture.shape[:2])
        size = [max(8, round(side * factor)) for side in picture.shape[1::-1]]
        x, y = chance.randint(-20, width - 40), chance.randint(-20, height - 40)
        over(ground, cv2.resize(picture, size, interpolation=cv2.INTER_AREA), x, y)
    return ground


class Teacher:
    """SSCD, as it is: RGB pictures of any size → unit vectors, float32 [N, 512]."""

    def __init__(self, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(weights_file(COPY_MODEL, VERSION), options)

    def __call__(self, pictures: list[Picture]) -> npt.NDArray[np.float32]:
        found = []
        for start in range(0, len(pictures), BATCH):
            batch = np.stack([squash(picture) for picture in pictures[start : start + BATCH]])
            found.append(self.session.run(None, {"image": batch})[0])
        vectors = np.concatenate(found)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def squash(picture: Picture) -> Picture:
    """Brings a picture to the side of the teacher, which is that of stored elements, too."""
    larger = min(picture.shape[:2]) > SIDE_PX
    interpolation = cv2.INTER_AREA if larger else cv2.INTER_LINEAR
    resized = cv2.resize(picture, (SIDE_PX, SIDE_PX), interpolation=interpolation)
    return np.asarray(resized, np.uint8)


GLYPH_KINDS = {"glyph", "word"}
GLYPH_COLOURS = (((0, 0, 0), (255, 255, 255)), ((255, 255, 255), (0, 0, 0)),
                 ((200, 30, 40), (240, 235, 225)))  # fmt: skip
"""A glyph is its shape, whatever its colours: the teacher's mean over these is its vector."""


def teach(things: list[Thing], data: Path, teacher: Teacher, file: Path) -> None:
    """Keeps the vector that each thing should have wherever it is seen, [N, 512].

    Args:
        things: What to look at.
        data: The folder of the photos.
        teacher: Who knows.
        file: Where the vectors are kept; a run that was cut short goes on from there.
    """
    vectors = np.load(file) if file.exists() else np.zeros((0, 512), np.float16)
    for start in range(len(vectors), len(things), KEPT_EVERY):
        views: list[Picture] = []
        owners: list[int] = []
        part = things[start : start + KEPT_EVERY]
        for index, thing in enumerate(part):
            seen = _views(thing, data)
            views += seen
            owners += [index] * len(seen)
        sums = np.zeros((len(part), 512), np.float32)
        np.add.at(sums, owners, teacher(views))
        sums /= np.linalg.norm(sums, axis=1, keepdims=True)
        vectors = np.concatenate([vectors, sums.astype(np.float16)])
        with file.with_suffix(".new").open("wb") as stream:
            np.save(stream, vectors)
        file.with_suffix(".new").replace(file)
        print(f"{len(vectors)} of {len(things)} things taught", flush=True)


def _views(thing: Thing, data: Path) -> list[Picture]:
    """As the teacher is shown it: once, or a glyph in several colours."""
    if thing.photo is not None:
        return [cut(read(data / thing.photo), thing.box)]
    assert thing.drawn is not None  # noqa: S101
    picture = decode(thing.drawn)
    if thing.kind in GLYPH_KINDS:
        return [on_ground(painted(picture, ink), paper) for ink, paper in GLYPH_COLOURS]
    return [on_ground(picture)]


def load(work: Path) -> tuple[list[Thing], npt.NDArray[np.float32]]:
    """The things that were taught so far, and their vectors.

    To the teacher all glyphs are much alike (mean cosine .52; photos .05). The student is given
    what tells them apart: their vectors less the mean of all of them (then 0, the nearest at .59).
    """
    vectors = np.load(work / "vectors.npy").astype(np.float32)
    things = _drawn(work)[: len(vectors)]
    are_glyphs = np.array([thing.kind in GLYPH_KINDS for thing in things])
    vectors[are_glyphs] -= vectors[are_glyphs].mean(0)
    return things, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _drawn(work: Path) -> list[Thing]:
    with (work / "things.pickle").open("rb") as stream:
        things: list[Thing] = pickle.load(stream)  # noqa: S301 our own file
    return things


def draw(data: Path, work: Path, icons: Path, clip_art: Path) -> None:
    """Keeps the things, unless they are there."""
    if not (work / "things.pickle").exists():
        things = make_things(data, icons, clip_art)
        (work / "things.pickle").write_bytes(pickle.dumps(things))


def ask_teacher(data: Path, work: Path, count: int | None, threads: int) -> None:
    """Keeps the vectors of so many things, which are in no order; None: of all."""
    teach(_drawn(work)[:count], data, Teacher(threads), work / "vectors.npy")
