"""Train the product embedding and the attribute heads, measure both, and export them.

    pip install -e '.[export,embedding]'
    python -m imagesearch_services.models.product.train_embedding

Writes `deploy/triton/models/product/2/model.onnx`. The features of each picture are computed once
and cached in the work folder, so an interrupted run resumes. All later steps take seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from imagesearch_services.embedding.subjects.plain_background import foreground_box
from imagesearch_services.models.common.embedder import COPY_MODEL, VERSION
from imagesearch_services.models.common.pictures import Picture, data_folder
from imagesearch_services.models.common.prepared import committed_weights, weights_file
from imagesearch_services.models.efficientnet_lite2.backbone import STRIDE_32
from imagesearch_services.models.efficientnet_lite2.onnx_files import export, quantize_backbone
from imagesearch_services.models.product.embedding_network import SIDE_PX, Extractor, Product
from imagesearch_services.models.product.garment_heads import (
    Garments,
    global_average,
    power_normalize,
    precision_at_5,
    train_heads,
)
from imagesearch_services.models.product.garment_kinds import KINDS
from imagesearch_services.models.product.pictures import (
    FOLDER,
    catalogue,
    crop,
    garments,
    letterbox,
    read,
    relative,
    shelf,
    squash,
)
from imagesearch_services.models.product.projection import Array, unit
from imagesearch_services.models.product.retrieval import (
    Groceries,
    KindParts,
    joined,
    measure_retrieval,
)
from imagesearch_services.models.product.splits import embedding_split

SSCD_SIDE_PX = 288
"""Side of the input of SSCD, in pixels."""
CALIBRATION_STEP = 10
"""Step between the training pictures that set quantization ranges or measure quantization loss."""
OUTPUT = committed_weights("product", 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of the data set")
    parser.add_argument("--work", type=Path, default=FOLDER, help="folder of cached features")
    parser.add_argument(
        "--without-sscd", action="store_true", help="do not measure the variants with SSCD"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    options.work.mkdir(parents=True, exist_ok=True)

    split = embedding_split()
    extractor = options.work / "pooled.onnx"
    if not extractor.exists():
        export(Extractor(), SIDE_PX, SIDE_PX, ["pooled"], extractor)
    sscd = None if options.without_sscd else weights_file(COPY_MODEL, VERSION)
    groceries = read_groceries(options.data, extractor, options.work, sscd)
    clothes = read_garments(options.data, extractor, options.work, split.garments_held_out)

    kind, sleeve = train_heads(clothes)
    kinds = [KindParts.of(kind, pooled) for pooled in (groceries.pooled, clothes.pooled)]
    measure_retrieval(groceries, clothes, split.folds, kinds).report()
    projection = groceries.fit(np.ones(len(groceries.products), bool))
    vectors = joined(
        projection(power_normalize(global_average(clothes.pooled)).numpy()), kinds[1].gated
    )
    print(f"garments, precision at 5 of the kind: {precision_at_5(vectors, clothes):.3f} (release)")
    outputs = ["embedding", "attributes", "categories"]
    exact = options.work / "product.onnx"
    export(Product(projection, kind, sleeve), SIDE_PX, SIDE_PX, outputs, exact)
    inputs = calibration_inputs(options.data, split.garments_held_out)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    quantize_backbone(exact, options.output, inputs[::2], last_block=STRIDE_32)
    compare(exact, options.output, inputs[1::2])
    print(f"sha256 {hashlib.sha256(options.output.read_bytes()).hexdigest()}")


def calibration_inputs(data: Path, held_out: Sequence[str]) -> list[Picture]:
    """Return inputs that set the quantization ranges or measure the quantization loss."""
    excluded = {data / name for name in held_out}
    learned = [*shelf(data), *(file for file in garments(data) if file not in excluded)]
    pictures = (subject_of(file) for file in learned[::CALIBRATION_STEP])
    return [letterbox(picture, SIDE_PX, SIDE_PX) for picture in pictures]


def read_groceries(data: Path, extractor: Path, work: Path, sscd: Path | None) -> Groceries:
    """Read or compute the features of catalogue pictures and shelf photos."""
    shop, shelves = catalogue(data), shelf(data)
    names = [file.stem for file in shop]
    files = relative([*shop, *shelves], data)
    pooled = torch.from_numpy(np.stack(cached(files, data, extractor, work / "pooled")))
    return Groceries(
        pooled,
        power_normalize(global_average(pooled)).numpy(),
        np.array([*range(len(names)), *(names.index(file.parent.name) for file in shelves)]),
        np.arange(len(files)) < len(shop),
        None if sscd is None else unit(np.stack(cached(files, data, sscd, work / "sscd"))),
    )


def read_garments(data: Path, extractor: Path, work: Path, held_out: list[str]) -> Garments:
    """Read or compute the features of garments."""
    files = relative(garments(data), data)
    return Garments(
        torch.from_numpy(np.stack(cached(files, data, extractor, work / "pooled"))),
        np.array([KINDS.index(name.split("/")[1]) for name in files]),
        np.isin(files, held_out),
    )


def cached(files: Sequence[str], data: Path, model: Path, folder: Path) -> list[Array]:
    """Run a model on the subject of each file, or read the output of an earlier run."""
    folder.mkdir(parents=True, exist_ok=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options)
    # The input of SSCD has no fixed size.
    side = SIDE_PX if session.get_inputs()[0].shape[1] == SIDE_PX else SSCD_SIDE_PX
    fit_into = letterbox if side == SIDE_PX else squash
    results, start = [], time.monotonic()
    for number, name in enumerate(files):
        saved = folder / (name.replace("/", "__") + ".npy")
        if not saved.exists():
            image = fit_into(subject_of(data / name), side, side)[None]
            partial = saved.with_suffix(".part")
            with partial.open("wb") as file:
                np.save(file, session.run(None, {session.get_inputs()[0].name: image})[0][0])
            partial.replace(saved)
            if number % 100 == 0:
                print(f"{number} of {len(files)}, {time.monotonic() - start:.0f} s", flush=True)
        results.append(np.load(saved))
    return results


def subject_of(file: Path) -> Picture:
    """Return the subject on a plain background with a margin, or the whole picture."""
    picture = read(file)
    box = foreground_box(picture)
    return picture if box is None else crop(picture, box)


def compare(exact: Path, quantized: Path, pictures: list[Picture]) -> None:
    """Print size, time and quantization loss, on pictures that did not set the ranges."""
    reference: list[Array] = []
    for file in (exact, quantized):
        for threads in (1, 2):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            session = onnxruntime.InferenceSession(file, options)
            runs, took_ms = [], []
            for picture in pictures:
                start = time.perf_counter()
                runs.append(session.run(None, {"image": picture[None]}))
                took_ms.append((time.perf_counter() - start) * 1000)
            outputs = [np.concatenate(parts) for parts in zip(*runs, strict=True)]
            reference = reference or outputs
            cosines = (unit(outputs[0]) * unit(reference[0])).sum(axis=1)
            count = len(KINDS)
            same = outputs[1][:, :count].argmax(1) == reference[1][:, :count].argmax(1)
            print(
                f"{file.stem}: {file.stat().st_size / 1e6:.1f} MB, {threads} thread(s) "
                f"{np.median(took_ms):.0f} ms per picture, cosine to float32 {cosines.mean():.4f} "
                f"(minimum {cosines.min():.4f}), same kind {same.mean():.3f}"
            )


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
