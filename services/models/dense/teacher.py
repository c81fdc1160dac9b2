"""The teacher: SSCD, whose vectors of things are the targets of distillation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from imagesearch_services.models.common.embedder import COPY_MODEL, VERSION
from imagesearch_services.models.common.prepared import weights_file
from imagesearch_services.models.dense.pixels import Picture, on_ground, painted, squash
from imagesearch_services.models.dense.things import GLYPH_KINDS, Thing, read_things

Vectors = npt.NDArray[np.float32]

DIMENSIONS = 512
BATCH = 8
"""Maximum number of pictures per run of the model."""
SAVE_INTERVAL = 200
"""Number of things between saves."""
GLYPH_COLORS = (
    ((0, 0, 0), (255, 255, 255)),
    ((255, 255, 255), (0, 0, 0)),
    ((200, 30, 40), (240, 235, 225)),
)
"""Foreground and background colors; the target of a glyph is its mean vector over these pairs."""


class Teacher:
    """Unmodified SSCD: RGB pictures of any size → unit vectors, float32 [N, 512]."""

    def __init__(self, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(weights_file(COPY_MODEL, VERSION), options)

    def __call__(self, pictures: list[Picture]) -> Vectors:
        parts = []
        for start in range(0, len(pictures), BATCH):
            batch = np.stack([squash(picture) for picture in pictures[start : start + BATCH]])
            parts.append(self._session.run(None, {"image": batch})[0])
        vectors = np.concatenate(parts)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def teach(data: Path, work: Path, count: int | None, threads: int) -> None:
    """Compute and save the target vector of each thing; an interrupted run resumes.

    Args:
        data: Folder of the data set.
        work: Folder of the things and their vectors.
        count: Number of things, the first of the random order; None for all.
        threads: Number of threads of the teacher.
    """
    teacher, file = Teacher(threads), work / "vectors.npy"
    things = read_things(work)[:count]
    vectors = np.load(file) if file.exists() else np.zeros((0, DIMENSIONS), np.float16)
    for start in range(len(vectors), len(things), SAVE_INTERVAL):
        views: list[Picture] = []
        owners: list[int] = []
        part = things[start : start + SAVE_INTERVAL]
        for index, thing in enumerate(part):
            of_thing = _views(thing, data)
            views += of_thing
            owners += [index] * len(of_thing)
        sums = np.zeros((len(part), DIMENSIONS), np.float32)
        np.add.at(sums, owners, teacher(views))
        sums /= np.linalg.norm(sums, axis=1, keepdims=True)
        vectors = np.concatenate([vectors, sums.astype(np.float16)])
        draft = file.with_suffix(".new")
        with draft.open("wb") as stream:
            np.save(stream, vectors)
        draft.replace(file)
        print(f"{len(vectors)} of {len(things)} things taught", flush=True)


def _views(thing: Thing, data: Path) -> list[Picture]:
    """Return the pictures that the teacher embeds: the thing, or a glyph in several colors."""
    picture = thing.read(data)
    if thing.kind in GLYPH_KINDS:
        return [on_ground(painted(picture, ink), paper) for ink, paper in GLYPH_COLORS]
    return [on_ground(picture)]


def load_targets(work: Path) -> tuple[list[Thing], Vectors]:
    """Return the things that have target vectors, and these vectors, unit length [things, 512].

    The teacher hardly distinguishes glyphs (mean cosine .52; photos .05). The target of a glyph is
    therefore its vector minus the mean of all glyphs (mean cosine 0, nearest .59).
    """
    vectors = np.load(work / "vectors.npy").astype(np.float32)
    things = read_things(work)[: len(vectors)]
    are_glyphs = np.array([thing.kind in GLYPH_KINDS for thing in things])
    vectors[are_glyphs] -= vectors[are_glyphs].mean(0)
    return things, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
