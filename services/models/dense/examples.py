"""Training examples, saved as feature maps of the frozen trunk."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import torch

from imagesearch_services.models.dense import pixels
from imagesearch_services.models.dense.pixels import Picture
from imagesearch_services.models.dense.scenes import SCENE_SIZES, SINGLE_SIZES, ExampleMaker
from imagesearch_services.models.dense.teacher import load_targets
from imagesearch_services.models.dense.things import GLYPH_KINDS, Thing

MAPS = ("c8", "c16", "c32")
"""Outputs of the trunk at strides 8, 16 and 32."""
SCENES_PER_SHARD = 64
SINGLES_PER_SHARD = 160
VIEWS_PER_SHARD = 400
BATCH = {"scene": 12, "single": 40}
"""Number of examples per training step, by kind of example."""


class Trunk:
    """The frozen part of the network."""

    def __init__(self, work: Path) -> None:
        cv2.setNumThreads(1)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(work / "trunk.onnx", options)

    def maps(self, pictures: Sequence[Picture], names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return maps of pictures of the same size, each float16 [N, channels, height, width]."""
        outputs = [self._session.run(names, {"image": picture[None]}) for picture in pictures]
        return {
            name: np.concatenate([maps[row] for maps in outputs]).astype(np.float16)
            for row, name in enumerate(names)
        }


def make_shard(data: Path, work: Path, number: int) -> None:
    """Save the maps of a shard of examples; every third shard has singles, the others scenes."""
    kind = "single" if number % 3 == 2 else "scene"
    file = work / "shards" / f"{number:03}-{kind}.npz"
    if file.exists():
        return
    sizes = SINGLE_SIZES if kind == "single" else SCENE_SIZES
    height, width = sizes[number // 3 % len(sizes)]
    maker = ExampleMaker(load_targets(work)[0], data, seed=number)
    examples = [
        maker.single(height, width) if kind == "single" else maker.scene(height, width)
        for _ in range(SINGLES_PER_SHARD if kind == "single" else SCENES_PER_SHARD)
    ]
    _save(
        file,
        windows=np.stack([example.windows for example in examples]),
        things=np.stack([example.things for example in examples]),
        **Trunk(work).maps([example.image for example in examples], MAPS),
    )


def make_views(data: Path, work: Path, start: int) -> None:
    """Save the maps of the clean views of `VIEWS_PER_SHARD` things, starting at index `start`."""
    file = work / "views" / f"{start:05}.npz"
    if file.exists():
        return
    rng = random.Random(start)
    things = load_targets(work)[0][start : start + VIEWS_PER_SHARD]
    views = [clean_view(thing, data, rng) for thing in things]
    _save(file, **Trunk(work).maps(views, MAPS[:2]))


def clean_view(thing: Thing, data: Path, rng: random.Random) -> Picture:
    """Return a thing as it would be stored in a library, RGB [SIDE_PX, SIDE_PX, 3].

    Glyphs have random colors and are often black on white.
    """
    picture = thing.read(data)
    if thing.photo is not None:
        return pixels.squash(picture)
    white = (255, 255, 255)
    paper = white
    if thing.kind in GLYPH_KINDS:
        paper = rng.choice([white, white, pixels.random_color(rng)])
        is_black = paper == white and rng.random() < 0.5
        ink = (0, 0, 0) if is_black else pixels.contrasting(paper, rng)
        picture = pixels.painted(picture, ink)
    return pixels.squash(pixels.on_ground(picture, paper, rng.uniform(0, 0.12)))


def _save(file: Path, **columns: np.ndarray) -> None:
    file.parent.mkdir(exist_ok=True)
    part = file.with_suffix(".part")
    with part.open("wb") as stream:
        np.savez(stream, **columns)  # type: ignore[arg-type]
    part.replace(file)
    print(f"{file.name}: {len(columns['c16'])} examples", flush=True)


class Shards:
    """Batches of all shards in a folder; shards that are added during training are included."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self._folder, self._rng = folder, rng
        self._loaded: dict[str, dict[str, np.ndarray]] = {}

    def batches(self) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            for file in sorted(self._folder.glob("*.npz")):
                if file.name not in self._loaded:
                    with np.load(file) as stored:
                        self._loaded[file.name] = {key: stored[key] for key in stored.files}
            plan = []
            for name, shard in self._loaded.items():
                size = BATCH["scene" if "scene" in name else "single"]
                order = self._rng.sample(range(len(shard["things"])), len(shard["things"]))
                plan += [(name, order[at : at + size]) for at in range(0, len(order), size)]
            self._rng.shuffle(plan)
            for name, rows in plan:
                yield {
                    key: torch.from_numpy(value[sorted(rows)])
                    for key, value in self._loaded[name].items()
                }
