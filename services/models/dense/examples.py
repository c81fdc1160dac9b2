"""Examples to learn from, as the trunk sees them: its maps are kept, since it does not learn."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import torch

from imagesearch_services.models.dense import bank
from imagesearch_services.models.dense.bank import GLYPH_KINDS, Picture, Thing
from imagesearch_services.models.dense.scenes import SCENE_SIZES, SINGLE_SIZES, Maker

MAPS = ("c8", "c16", "c32")
"""At strides 8, 16 and 32."""
SCENES_PER_SHARD = 64
SINGLES_PER_SHARD = 160
VIEWS_PER_SHARD = 400
BATCH = {"scene": 12, "single": 40}


class Trunk:
    """The frozen part of the network."""

    def __init__(self, work: Path) -> None:
        cv2.setNumThreads(1)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(work / "trunk.onnx", options)

    def maps(self, pictures: Sequence[Picture], names: Sequence[str]) -> dict[str, np.ndarray]:
        """Maps of pictures of one size, each [n, channels, height, width] in float16."""
        found = [self._session.run(names, {"image": picture[None]}) for picture in pictures]
        return {
            name: np.concatenate([maps[row] for maps in found]).astype(np.float16)
            for row, name in enumerate(names)
        }


def make_shard(data: Path, work: Path, number: int) -> None:
    """Keeps the maps of some examples: two shards of scenes to one of singles."""
    kind = "single" if number % 3 == 2 else "scene"
    file = work / "shards" / f"{number:03}-{kind}.npz"
    if file.exists():
        return
    sizes = SINGLE_SIZES if kind == "single" else SCENE_SIZES
    height, width = sizes[number // 3 % len(sizes)]
    maker = Maker(bank.load(work)[0], data, seed=number)
    examples = [
        maker.single(height, width) if kind == "single" else maker.scene(height, width)
        for _ in range(SINGLES_PER_SHARD if kind == "single" else SCENES_PER_SHARD)
    ]
    _keep(
        file,
        windows=np.stack([example.windows for example in examples]),
        things=np.stack([example.things for example in examples]),
        **Trunk(work).maps([example.image for example in examples], MAPS),
    )


def make_views(data: Path, work: Path, start: int) -> None:
    """Keeps the maps of some things from that one on, seen clean."""
    file = work / "views" / f"{start:05}.npz"
    if file.exists():
        return
    chance = random.Random(start)
    things = bank.load(work)[0][start : start + VIEWS_PER_SHARD]
    _keep(file, **Trunk(work).maps([clean_view(one, data, chance) for one in things], MAPS[:2]))


def clean_view(thing: Thing, data: Path, chance: random.Random) -> Picture:
    """As a thing would be stored, RGB [SIDE_PX, SIDE_PX, 3]: glyphs often black on white."""
    if thing.photo is not None:
        return bank.squash(bank.cut(bank.read(data / thing.photo), thing.box))
    assert thing.drawn is not None  # noqa: S101
    picture, paper = bank.decode(thing.drawn), (255, 255, 255)
    if thing.kind in GLYPH_KINDS:
        paper = chance.choice([paper, paper, bank.colour(chance)])
        is_black = paper == (255, 255, 255) and chance.random() < 0.5
        picture = bank.painted(picture, (0, 0, 0) if is_black else bank.contrasting(paper, chance))
    return bank.squash(bank.on_ground(picture, paper, chance.uniform(0, 0.12)))


def _keep(file: Path, **columns: np.ndarray) -> None:
    file.parent.mkdir(exist_ok=True)
    part = file.with_suffix(".part")
    with part.open("wb") as stream:
        np.savez(stream, **columns)  # type: ignore[arg-type]
    part.replace(file)
    print(f"{file.name}: {len(columns['c16'])} examples", flush=True)


class Shards:
    """Batches from all shards there are; looks for new ones as it goes."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder, self.chance = folder, chance
        self.held: dict[str, dict[str, np.ndarray]] = {}

    def batches(self) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            for file in sorted(self.folder.glob("*.npz")):
                if file.name not in self.held:
                    with np.load(file) as stored:
                        self.held[file.name] = {key: stored[key] for key in stored.files}
            plan = []
            for name, shard in self.held.items():
                size = BATCH["scene" if "scene" in name else "single"]
                order = self.chance.sample(range(len(shard["things"])), len(shard["things"]))
                plan += [(name, order[at : at + size]) for at in range(0, len(order), size)]
            self.chance.shuffle(plan)
            for name, rows in plan:
                yield {
                    key: torch.from_numpy(value[sorted(rows)])
                    for key, value in self.held[name].items()
                }
