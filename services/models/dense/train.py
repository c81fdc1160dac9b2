"""Train the dense descriptor by distillation from SSCD and by contrastive learning, and export it.

    pip install -e '.[export,embedding]' && pip install resvg-py==0.5.0
    python -m imagesearch_services.models.dense.train trunk
    python -m imagesearch_services.models.dense.train things --icons icons --clip-art clip
    python -m imagesearch_services.models.dense.train shards
    python -m imagesearch_services.models.dense.train distil --minutes 54
    python -m imagesearch_services.models.dense.train views
    python -m imagesearch_services.models.dense.train tune --minutes 75
    python -m imagesearch_services.models.dense.train export

`export` writes `deploy/triton/models/dense/2/model.onnx`. Every step except `tune` resumes after an
interruption. `shards` and `distil` can run at the same time, because `distil` picks up new shards.
`--workers` uses more cores, `--device cuda` an accelerator.

The teacher is the unmodified ONNX file of SSCD; no part of it is in the student. The teacher's
vector of the clean, whole picture of a thing is the target for every edit of the thing and for a
window around it in any picture (distilling.py). The student then learns to separate things by its
own vectors (contrast.py).
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnx.compose
import onnxruntime
import torch

from imagesearch_services.models.common.pictures import data_folder, read_pixels
from imagesearch_services.models.common.prepared import committed_weights
from imagesearch_services.models.dense.contrast import Student, tune
from imagesearch_services.models.dense.distilling import distil
from imagesearch_services.models.dense.examples import MAPS, VIEWS_PER_SHARD, make_shard, make_views
from imagesearch_services.models.dense.network import TRUNK_CHANNELS, TRUNK_SIZE, Descriptor
from imagesearch_services.models.dense.teacher import load_targets, teach
from imagesearch_services.models.dense.things import FOLDER, keep_things, learned_photos
from imagesearch_services.models.efficientnet_lite2.backbone import FINE_TUNED_FROM_BLOCK, Backbone
from imagesearch_services.models.efficientnet_lite2.onnx_files import (
    quantize_backbone,
    store_weights_as_float16,
    to_onnx,
)

OUTPUT = committed_weights("dense", 2)
OUTPUTS = ("embedding", "windows")
CENTER_PHOTOS = 60
"""Approximate number of photos whose windows determine the mean that is subtracted."""
STEPS = ("trunk", "things", "shards", "distil", "views", "tune", "export")


class FromMaps(torch.nn.Module):
    """The network after the trunk: maps of strides 8 and 16 → embedding, windows."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.descriptor, self.stage = Descriptor(student.head), student.stage

    def forward(self, c8: torch.Tensor, c16: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        vectors: tuple[torch.Tensor, torch.Tensor] = self.descriptor(c8, c16, self.stage(c16))
        return vectors


class Trunk(torch.nn.Module):
    """uint8 RGB [N, height, width, 3], sides multiples of 32 → maps at strides 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone(*TRUNK_SIZE)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        maps: tuple[torch.Tensor, ...] = self.backbone(image)[:3]
        return maps


def export_trunk(data: Path, work: Path) -> None:
    """Write trunk.onnx: the backbone in 8 bits up to stride 16, then in floating point."""
    sizes = {f"{side}_32": torch.export.Dim(f"{side}_32", min=2, max=64) for side in "hw"}
    exact = work / "trunk-exact.onnx"
    shapes = {0: torch.export.Dim("batch"), 1: 32 * sizes["h_32"], 2: 32 * sizes["w_32"]}
    image = torch.zeros(2, *TRUNK_SIZE, 3, dtype=torch.uint8)
    program = to_onnx(Trunk().eval(), [image], ["image"], MAPS, {"image": shapes})
    onnx.save(program, exact)
    photos = (read_pixels(data / name) for name in learned_photos(data)[::16])
    pictures = (
        np.asarray(cv2.resize(photo, (384, 512), interpolation=cv2.INTER_AREA), np.uint8)
        for photo in photos
    )
    quantize_backbone(exact, work / "trunk.onnx", pictures, last_block=FINE_TUNED_FROM_BLOCK - 1)


def export(data: Path, work: Path, output: Path) -> None:
    """Write the model: image → embedding, windows."""
    student = Student()
    student.load_state_dict(torch.load(work / "tuned.pt", map_location="cpu"))
    names = MAPS[:2]
    size = {"h": torch.export.Dim("h", min=2, max=64), "w": torch.export.Dim("w", min=2, max=64)}
    batch = torch.export.Dim("batch")
    maps, shapes = [], {}
    for name, channels, factor in zip(names, TRUNK_CHANNELS, (4, 2), strict=False):
        maps.append(torch.zeros(2, channels, 16 * factor, 12 * factor))
        shapes[name] = {0: batch, 2: factor * size["h"], 3: factor * size["w"]}
    module = FromMaps(student).eval()
    trunk = onnx.load(work / "trunk.onnx")
    seen = photo_windows(data, trunk.SerializeToString(), module, names)
    module.descriptor.center.copy_(seen.mean(0))
    after = to_onnx(module, maps, names, OUTPUTS, shapes)
    after = onnx.compose.add_prefix(after, "head/", rename_inputs=False, rename_outputs=False)
    model = onnx.compose.merge_models(
        trunk, after, io_map=[(name, name) for name in names], outputs=list(OUTPUTS)
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, output)
    store_weights_as_float16(output, output)
    digest = hashlib.sha256(output.read_bytes()).hexdigest()
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB, sha256 {digest}")


@torch.no_grad()
def photo_windows(data: Path, trunk: bytes, module: FromMaps, names: Sequence[str]) -> torch.Tensor:
    """Return the vectors of the windows of some training photos, [photos * windows, 512]."""
    session = onnxruntime.InferenceSession(trunk)
    found = []
    photos = learned_photos(data)
    for name in photos[:: len(photos) // CENTER_PHOTOS]:
        photo = read_pixels(data / name)
        size = (480, 640) if photo.shape[0] > photo.shape[1] else (640, 480)
        image = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
        maps = session.run(names, {"image": image[None]})
        found.append(module(*(torch.from_numpy(array) for array in maps))[1][0])
    return torch.cat(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of the data set")
    parser.add_argument("--work", type=Path, default=FOLDER, help="keeps the result of each step")
    parser.add_argument("--icons", type=Path, help="folder of the icon collections")
    parser.add_argument("--clip-art", type=Path, help="folder of the clip art")
    parser.add_argument("--things", type=int, help="number of things to teach (default: all)")
    parser.add_argument("--count", type=int, default=60, help="number of shards")
    parser.add_argument("--minutes", type=float, default=60, help="training time")
    parser.add_argument("--workers", type=int, default=1, help="number of processes or threads")
    parser.add_argument("--device", default="cpu", help="PyTorch device")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.step == "trunk":
        export_trunk(options.data, options.work)
    elif options.step == "things":
        keep_things(options.data, options.work, options.icons, options.clip_art)
        teach(options.data, options.work, options.things, options.workers)
    elif options.step == "shards":
        make = partial(make_shard, options.data, options.work)
        in_parallel(options.workers, make, range(options.count))
    elif options.step == "views":
        make = partial(make_views, options.data, options.work)
        things = len(load_targets(options.work)[0])
        in_parallel(options.workers, make, range(0, things, VIEWS_PER_SHARD))
    elif options.step == "export":
        export(options.data, options.work, options.output)
    else:
        learn = distil if options.step == "distil" else tune
        learn(options.work, options.minutes, options.device)


def in_parallel(workers: int, make: Callable[[int], None], numbers: Iterable[int]) -> None:
    """Call `make` with each number, in several processes."""
    with Pool(workers) as pool:
        pool.map(make, numbers, chunksize=1)


if __name__ == "__main__":
    main()
