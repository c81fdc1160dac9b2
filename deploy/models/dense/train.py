"""Trains the dense descriptor by distillation from SSCD, and exports it.

    pip install -e '.[export]' && pip install resvg-py==0.5.0
    python deploy/models/dense/train.py trunk --pictures ../shared/data --work .cache/dense
    python deploy/models/dense/train.py things --pictures ../shared/data --work .cache/dense \
        --icons icons --clip-art clip --sscd .models/repository/sscd/1/model.onnx
    python deploy/models/dense/train.py shards --pictures ../shared/data --work .cache/dense
    python deploy/models/dense/train.py learn --work .cache/dense --minutes 60
    python deploy/models/dense/train.py export --pictures ../shared/data --work .cache/dense

Each step goes on where it was stopped; `shards` and `learn` can run side by side, since `learn`
takes up what has come since. `--workers` is for machines with more cores, `--device cuda` for those
with an accelerator.

The teacher only answers: it runs as the file it is, and nothing of it is shipped. Its vector of a
thing, seen clean and whole, is what the student must give for every edit of that thing and for a
window around it in any picture.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import bank
import cv2
import numpy as np
import onnx
import onnx.compose
import onnxruntime
import torch
from network import TRUNK_CHANNELS, Descriptor, Head
from scenes import SCENE_SIZES, SINGLE_SIZES, Maker

sys.path.append(str(Path(__file__).parents[1] / "product"))
from backbone import OPSET, Backbone, quantize, store_weights_as_float16

OUTPUT = Path(__file__).parents[2] / "triton/models/dense/1/model.onnx"
SCENES_PER_SHARD = 64
SINGLES_PER_SHARD = 160
MAPS = ("c8", "c16", "c32")
OUTPUTS = ("embedding", "windows")
FINE_TUNED_FROM_BLOCK = 15
RELATION_TEMPERATURE = 0.06
RELATION_WEIGHT = 0.25
PEAK_RATE, FLOOR_RATE = 2e-3, 2e-5
BATCH = {"scene": 12, "single": 40}
WARM_UP_STEPS = 60
CENTRE_PHOTOS = 60


class LastStage(torch.nn.Module):
    """The backbone's blocks of stride 32, learning; their batch statistics stay."""

    def __init__(self) -> None:
        super().__init__()
        network = Backbone(512, 384).network
        self.blocks = torch.nn.ModuleList(list(network._blocks)[FINE_TUNED_FROM_BLOCK:])  # noqa: SLF001
        self.requires_grad_(requires_grad=True)

    def train(self, mode: bool = True) -> LastStage:  # noqa: ARG002
        return super().train(mode=False)

    def forward(self, c16: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            c16 = block(c16)
        return c16


def make_shard(data: Path, work: Path, number: int) -> None:
    """Keeps the trunk's maps of some examples: two shards of scenes to one of singles."""
    kind = "single" if number % 3 == 2 else "scene"  # noqa: PLR2004
    file = work / "shards" / f"{number:03}-{kind}.npz"
    if file.exists():
        return
    cv2.setNumThreads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    trunk = onnxruntime.InferenceSession(work / "trunk.onnx", options)
    sizes = SINGLE_SIZES if kind == "single" else SCENE_SIZES
    height, width = sizes[number // 3 % len(sizes)]
    maker = Maker(bank.load(work)[0], data, seed=number)
    examples = [
        maker.single(height, width) if kind == "single" else maker.scene(height, width)
        for _ in range(SINGLES_PER_SHARD if kind == "single" else SCENES_PER_SHARD)
    ]
    maps = [trunk.run(MAPS, {"image": example.image[None]}) for example in examples]
    part = file.with_suffix(".part")
    with part.open("wb") as stream:
        np.savez(
            stream,
            windows=np.stack([example.windows for example in examples]),
            things=np.stack([example.things for example in examples]),
            **{
                name: np.concatenate([found[i] for found in maps]).astype(np.float16)
                for i, name in enumerate(MAPS)
            },
        )
    part.replace(file)
    print(f"{file.name}: {len(examples)} examples", flush=True)


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


def learn(work: Path, minutes: float, device: str, *, tune: bool) -> None:
    """Learns for so many minutes, the rate falling towards the end of them.

    Args:
        work: Where shards and vectors are, and the weights are kept.
        minutes: Of processor time without an accelerator, else by the clock.
        device: Torch's name of it.
        tune: The backbone's last stage too.
    """
    chance = random.Random(time.time_ns())  # noqa: S311 no secret
    clock = time.process_time if device == "cpu" else time.perf_counter
    teacher = torch.from_numpy(bank.load(work)[1]).to(device)
    head, stage = Head().to(device), LastStage().to(device)
    checkpoint = work / "head.pt"
    if checkpoint.exists():
        kept = torch.load(checkpoint, map_location=device)
        head.load_state_dict(kept["head"])
        stage.load_state_dict(kept["stage"])
    groups = [{"params": head.parameters(), "scale": 1.0}]
    if tune:
        groups.append({"params": stage.parameters(), "scale": 0.25})
    optimizer = torch.optim.AdamW(groups, lr=PEAK_RATE, weight_decay=0.02)
    begin, sums = clock(), np.zeros(3)
    for step, held in enumerate(Shards(work / "shards", chance).batches(), 1):
        gone = (clock() - begin) / (60 * minutes)
        if gone >= 1:
            break
        rate = FLOOR_RATE + (PEAK_RATE - FLOOR_RATE) * (1 + np.cos(np.pi * gone)) / 2
        rate *= min(1, step / WARM_UP_STEPS)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"] * (0.5 if checkpoint.exists() and tune else 1)
        batch = {key: value.to(device) for key, value in held.items()}
        loss, cosine, relation = losses(head, stage if tune else None, batch, teacher)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 3.0)
        optimizer.step()
        sums += (cosine, relation, 1)
        if step % 25 == 0:
            print(f"{gone:.3f} step {step}: cosine {sums[0] / sums[2]:.4f}, "
                  f"relation {sums[1] / sums[2]:.3f}", flush=True)  # fmt: skip
            sums[:] = 0
        if step % 100 == 0:
            keep(head, stage, checkpoint)
    keep(head, stage, checkpoint)


def losses(
    head: Head, stage: LastStage | None, batch: dict[str, torch.Tensor], teacher: torch.Tensor
) -> tuple[torch.Tensor, float, float]:
    """The loss; the mean cosine to the teacher; how far relations to all other things are off."""
    c8, c16, c32 = (batch[name].float() for name in MAPS)
    used = batch["things"] >= 0
    columns = int(used.sum(1).max())
    # Half as long where a processor has instructions for bfloat16; windows are averaged exactly.
    with torch.autocast(c8.device.type, torch.bfloat16):
        if stage is not None:
            c32 = stage(c16)
        found = head(c8, c16, c32, batch["windows"][:, :columns])[used[:, :columns]]
    wanted = teacher[batch["things"][used].long()]
    cosine = (found * wanted).sum(1)
    truth = torch.softmax(wanted @ teacher.T / RELATION_TEMPERATURE, 1)
    guess = torch.log_softmax(found @ teacher.T / RELATION_TEMPERATURE, 1)
    relation = -(truth * guess).sum(1).mean() + (truth * truth.clamp(min=1e-9).log()).sum(1).mean()
    loss = (1 - cosine).mean() + RELATION_WEIGHT * relation
    return loss, cosine.mean().item(), relation.item()


class FromMaps(torch.nn.Module):
    """What comes after the trunk; computes the last stage itself where that was tuned."""

    def __init__(self, head: Head, stage: LastStage | None) -> None:
        super().__init__()
        self.descriptor, self.stage = Descriptor(head), stage

    def forward(self, *maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found: tuple[torch.Tensor, torch.Tensor]
        if self.stage is not None:
            found = self.descriptor(*maps, self.stage(maps[1]))
        else:
            found = self.descriptor(*maps)
        return found


class Trunk(torch.nn.Module):
    """uint8 RGB [N, height, width, 3], sides multiples of 32 → maps at strides 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        # Padding is fixed by the size that it is built for; any multiple of 32 has the same.
        self.backbone = Backbone(512, 384)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found: tuple[torch.Tensor, ...] = self.backbone(image)[:3]
        return found


def export_trunk(data: Path, work: Path) -> None:
    """Writes trunk.onnx: the backbone in 8 bits up to stride 16, in floating point after."""
    sizes = {f"{side}_32": torch.export.Dim(f"{side}_32", min=2, max=64) for side in "hw"}
    exact = work / "trunk-exact.onnx"
    shapes = {0: torch.export.Dim("batch"), 1: 32 * sizes["h_32"], 2: 32 * sizes["w_32"]}
    image = torch.zeros(2, 512, 384, 3, dtype=torch.uint8)
    program = _program(Trunk().eval(), (image,), ["image"], MAPS, {"image": shapes})
    onnx.save(program, exact)
    photos = (bank.read(data / name) for name in bank.learned_photos(data)[::16])
    pictures = (cv2.resize(photo, (384, 512), interpolation=cv2.INTER_AREA) for photo in photos)
    quantize(exact, work / "trunk.onnx", pictures, last_block=FINE_TUNED_FROM_BLOCK - 1)


def export(data: Path, work: Path, output: Path, *, tuned: bool) -> None:
    """Writes the model: image → embedding, windows."""
    kept = torch.load(work / "head.pt", map_location="cpu")
    head, stage = Head(), LastStage()
    head.load_state_dict(kept["head"])
    stage.load_state_dict(kept["stage"])
    names = MAPS[:2] if tuned else MAPS
    size = {"h": torch.export.Dim("h", min=2, max=64), "w": torch.export.Dim("w", min=2, max=64)}
    batch = torch.export.Dim("batch")
    maps, shapes = [], []
    for channels, factor, _ in zip(TRUNK_CHANNELS, (4, 2, 1), names, strict=False):
        maps.append(torch.zeros(2, channels, 16 * factor, 12 * factor))
        shapes.append({0: batch, 2: factor * size["h"], 3: factor * size["w"]})
    module = FromMaps(head, stage if tuned else None).eval()
    trunk = onnx.load(work / "trunk.onnx")
    seen = photo_windows(data, trunk.SerializeToString(), module, names)
    module.descriptor.centre.copy_(seen.mean(0))
    after = _program(module, tuple(maps), names, OUTPUTS, {"maps": tuple(shapes)})
    after = onnx.compose.add_prefix(after, "head/", rename_inputs=False, rename_outputs=False)
    model = onnx.compose.merge_models(
        trunk, after, io_map=[(name, name) for name in names], outputs=list(OUTPUTS)
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, output)
    store_weights_as_float16(output)
    digest = hashlib.sha256(output.read_bytes()).hexdigest()
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB, sha256 {digest}")


@torch.no_grad()
def photo_windows(data: Path, trunk: bytes, module: FromMaps, names: Sequence[str]) -> torch.Tensor:
    """Vectors of the windows of photos, [photos * windows, 512]."""
    session = onnxruntime.InferenceSession(trunk)
    found = []
    photos = bank.learned_photos(data)
    for name in photos[:: len(photos) // CENTRE_PHOTOS]:
        photo = bank.read(data / name)
        size = (480, 640) if photo.shape[0] > photo.shape[1] else (640, 480)
        image = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
        maps = session.run(names, {"image": image[None]})
        found.append(module(*(torch.from_numpy(each) for each in maps))[1][0])
    return torch.cat(found)


def _program(
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    names: Sequence[str],
    outputs: Sequence[str],
    shapes: dict[str, Any],
) -> onnx.ModelProto:
    program = torch.onnx.export(
        module,
        inputs,
        dynamo=True,
        opset_version=OPSET,
        input_names=list(names),
        output_names=list(outputs),
        dynamic_shapes=shapes,
    )
    model = program.model_proto
    for node in model.graph.node:  # where in the source each came from, with the machine's paths
        del node.metadata_props[:]
    return model


def keep(head: Head, stage: LastStage, file: Path) -> None:
    part = file.with_suffix(".part")
    torch.save({"head": head.state_dict(), "stage": stage.state_dict()}, part)
    part.replace(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("step", choices=["trunk", "things", "shards", "learn", "export"])
    parser.add_argument("--work", type=Path, required=True, help="keeps every step's result")
    parser.add_argument("--pictures", type=Path, help="the folder of data sets")
    parser.add_argument("--icons", type=Path)
    parser.add_argument("--clip-art", type=Path)
    parser.add_argument("--sscd", type=Path)
    parser.add_argument("--things", type=int, help="how many to teach; all without it")
    parser.add_argument("--count", type=int, default=60, help="of shards")
    parser.add_argument("--minutes", type=float, default=60, help="to learn for")
    parser.add_argument("--workers", type=int, default=1, help="processes or threads")
    parser.add_argument("--device", default="cpu", help="as Torch calls it")
    parser.add_argument("--tune", action="store_true", help="the backbone's last stage too")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.step == "trunk":
        export_trunk(options.pictures, options.work)
    elif options.step == "things":
        bank.draw(options.pictures, options.work, options.icons, options.clip_art)
        bank.ask_teacher(
            options.pictures, options.work, options.sscd, options.things, options.workers
        )
    elif options.step == "shards":
        (options.work / "shards").mkdir(exist_ok=True)
        make = partial(make_shard, options.pictures, options.work)
        with Pool(options.workers) as pool:
            pool.map(make, range(options.count), chunksize=1)
    elif options.step == "learn":
        learn(options.work, options.minutes, options.device, tune=options.tune)
    else:
        export(options.pictures, options.work, options.output, tuned=options.tune)


if __name__ == "__main__":
    main()
