"""Train the product embedding and the attribute heads, measure both, and export them.

    pip install -e '.[export,embedding]'
    python -m imagesearch_services.models.product.train_embedding

Writes `deploy/triton/models/product/2/model.onnx`. The features of each picture are computed once
and kept in the work folder, so an interrupted run continues. All later steps are closed form and
take seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from imagesearch_services.embedding.subjects.plain_background import foreground_box
from imagesearch_services.models.common.embedder import COPY_MODEL, VERSION
from imagesearch_services.models.common.pictures import Picture, data_folder
from imagesearch_services.models.common.prepared import committed_weights, weights_file
from imagesearch_services.models.efficientnet_lite2.backbone import (
    STRIDE_32,
    Backbone,
    export,
    quantize,
)
from imagesearch_services.models.product.garment_heads import (
    CATEGORY_OF_KIND,
    CHANNELS,
    COARSE_CELLS,
    FINE_CELLS,
    KINDS,
    Garments,
    looks,
    overall,
    precision_of_kind,
    probabilities,
    tame,
    train_heads,
)
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
from imagesearch_services.models.product.splits import embedding_split

SIDE_PX = 384
SSCD_SIDE_PX = 288
PROJECTED = 246
"""Components of the embedding that are learned from products; the kinds of garment follow."""
KIND_SHARE = 1.0
"""Weight of the product of two pictures' probabilities of kinds, beside the cosine of the rest.
Chosen by three folds of the learned garments: more of it gains no precision worth what the rest of
the look then loses."""
CLOTHING_FROM, CLOTHING_SURE = 0.05, 0.15
"""Probability of ImageNet's clothing from which kinds count, and from which they count in full: the
embedding of a carton of milk is none of its likeness to a shirt. 95 % of groceries lie below the
first, 95 % of the learned garments above the second."""
SHRINKAGE = 0.9
"""Towards a covariance that is the same in every direction; 0.85 to 0.97 do equally well."""
DOMAIN_WEIGHT = 1.0
"""Of the step from shelf photos to the catalogue picture, beside the spread among shelf photos."""
SSCD_WEIGHT = 0.3
"""Of SSCD's cosine beside the embedding's; as a factor on SSCD's vector, its square root."""
FOLDS = 5
CALIBRATION_STEP = 10
"""Every so manieth picture sets the ranges of 8 bits or measures their cost."""
OUTPUT = committed_weights("product", 2)

IMAGENET_CATEGORIES: dict[str, list[int]] = json.loads(
    Path(__file__).with_name("imagenet_categories.json").read_text()
)

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Projection:
    """`(features - mean) @ matrix`: principal axes, then whitening of what differs in a class."""

    mean: Array
    matrix: Array

    def __call__(self, features: Array) -> Array:
        return unit(np.asarray((features - self.mean) @ self.matrix))


@dataclass(frozen=True)
class Grocery:
    """All pictures of goods that are no clothing."""

    pooled: torch.Tensor
    """What `Extractor` gives."""
    features: Array
    """Tamed averages of the last map, [pictures, CHANNELS]."""
    products: npt.NDArray[np.intp]
    is_catalogue: npt.NDArray[np.bool_]
    sscd: Array | None


class Extractor(torch.nn.Module):
    """uint8 RGB [N, 384, 384, 3] → averages over parts of two maps, [N, COARSE + FINE].

    Of the last map thirds of its height and width, of the one of stride 16 sixths.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone(SIDE_PX, SIDE_PX)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        _, fine, _, coarse = self.backbone(image)
        pool = torch.nn.functional.avg_pool2d
        parts = [
            pool(coarse, coarse.shape[-1] // COARSE_CELLS),
            pool(fine, fine.shape[-1] // FINE_CELLS),
        ]
        return torch.cat([part.flatten(1) for part in parts], 1)


class Clothing(torch.nn.Module):
    """How far a crop shows clothing, by the classes of ImageNet."""

    def __init__(self, classifier: torch.nn.Linear) -> None:
        super().__init__()
        self.classifier = classifier
        members = torch.zeros(1000, len(IMAGENET_CATEGORIES) + 1)
        for column, classes in enumerate(IMAGENET_CATEGORIES.values()):
            members[classes, column] = 1
        members[:, -1] = 1 - members.sum(1)
        self.register_buffer("members", members)
        worn = set(CATEGORY_OF_KIND.values())
        self.worn = [index for index, name in enumerate(IMAGENET_CATEGORIES) if name in worn]

    def forward(self, average: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities of all categories, OTHER last, and from 0 to 1 how much kinds count."""
        categories = self.classifier(average).softmax(1) @ self.members
        seen = categories[:, self.worn].sum(1, keepdim=True)
        counts = (seen - CLOTHING_FROM) / (CLOTHING_SURE - CLOTHING_FROM)
        return categories, counts.clamp(0, 1)


class Product(torch.nn.Module):
    """Gives `embedding` [N, 256], `attributes` [N, 12] and `categories` [N, 14].

    The embedding is the projection, unit length, then the probabilities of KINDS, weighed, as far
    as there is clothing. Attributes are the probabilities of KINDS, then of SLEEVES. Categories are
    the sums of the probabilities of ImageNet's classes, in the order of imagenet_categories.json,
    OTHER last.
    """

    def __init__(
        self, projection: Projection, kind: torch.nn.Linear, sleeve: torch.nn.Linear
    ) -> None:
        super().__init__()
        self.extractor = Extractor()
        self.project = torch.nn.Linear(CHANNELS, PROJECTED)
        matrix = torch.from_numpy(projection.matrix.astype(np.float32))
        mean = torch.from_numpy(projection.mean.astype(np.float32))
        self.project.weight.data = matrix.T.contiguous()
        self.project.bias.data = -(mean @ matrix)
        self.kind, self.sleeve = kind, sleeve
        self.clothing = Clothing(self.extractor.backbone.network._fc)  # noqa: SLF001

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pooled = self.extractor(image)
        average, look = overall(pooled), looks(pooled)
        kind, sleeve = self.kind(look).softmax(1), self.sleeve(look).softmax(1)
        categories, counts = self.clothing(average)
        projected = torch.nn.functional.normalize(self.project(tame(average)))
        embedding = [projected, counts * kind * KIND_SHARE**0.5]
        return torch.cat(embedding, 1), torch.cat([kind, sleeve], 1), categories


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of the data set")
    parser.add_argument("--work", type=Path, default=FOLDER, help="keeps features between runs")
    parser.add_argument("--without-sscd", action="store_true", help="do not measure SSCD's share")
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
    told = [told_kinds(kind, pooled) for pooled in (groceries.pooled, clothes.pooled)]
    measure_retrieval(groceries, clothes, split.folds, told)
    projection = fit(groceries, np.ones(len(groceries.products), bool))
    vectors = joined(projection(tame(overall(clothes.pooled)).numpy()), told[1].gated)
    print(
        f"garments, precision at 5 of the kind: {precision_of_kind(vectors, clothes):.3f} (release)"
    )
    outputs = ["embedding", "attributes", "categories"]
    exact = options.work / "product.onnx"
    export(Product(projection, kind, sleeve), SIDE_PX, SIDE_PX, outputs, exact)
    held_out = {options.data / name for name in split.garments_held_out}
    learned = [
        *shelf(options.data),
        *(file for file in garments(options.data) if file not in held_out),
    ]
    pictures = (subject_of(file) for file in learned[::CALIBRATION_STEP])
    inputs = [letterbox(picture, SIDE_PX, SIDE_PX) for picture in pictures]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    quantize(exact, options.output, inputs[::2], last_block=STRIDE_32)
    compare(exact, options.output, inputs[1::2])


def read_groceries(data: Path, extractor: Path, work: Path, sscd: Path | None) -> Grocery:
    shop, shelves = catalogue(data), shelf(data)
    names = [file.stem for file in shop]
    files = relative([*shop, *shelves], data)
    pooled = torch.from_numpy(np.stack(cached(files, data, extractor, work / "pooled")))
    return Grocery(
        pooled,
        tame(overall(pooled)).numpy(),
        np.array([*range(len(names)), *(names.index(file.parent.name) for file in shelves)]),
        np.arange(len(files)) < len(shop),
        None if sscd is None else unit(np.stack(cached(files, data, sscd, work / "sscd"))),
    )


def read_garments(data: Path, extractor: Path, work: Path, held_out: list[str]) -> Garments:
    files = relative(garments(data), data)
    return Garments(
        torch.from_numpy(np.stack(cached(files, data, extractor, work / "pooled"))),
        np.array([KINDS.index(name.split("/")[1]) for name in files]),
        np.isin(files, held_out),
    )


def cached(files: Sequence[str], data: Path, model: Path, folder: Path) -> list[Array]:
    """Runs a model on each file's subject, or reads what an earlier run kept of it."""
    folder.mkdir(parents=True, exist_ok=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options)
    # SSCD's file leaves its size open.
    side = SIDE_PX if session.get_inputs()[0].shape[1] == SIDE_PX else SSCD_SIDE_PX
    fit_into = letterbox if side == SIDE_PX else squash
    results, start = [], time.monotonic()
    for number, name in enumerate(files):
        kept = folder / (name.replace("/", "__") + ".npy")
        if not kept.exists():
            image = fit_into(subject_of(data / name), side, side)[None]
            partial = kept.with_suffix(".part")
            with partial.open("wb") as file:
                np.save(file, session.run(None, {session.get_inputs()[0].name: image})[0][0])
            partial.replace(kept)
            if number % 100 == 0:
                print(f"{number} of {len(files)}, {time.monotonic() - start:.0f} s", flush=True)
        results.append(np.load(kept))
    return results


def subject_of(file: Path) -> Picture:
    """What stands out from a plain background, with its margin, or the whole picture."""
    picture = read(file)
    box = foreground_box(picture)
    return picture if box is None else crop(picture, box)


def unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-9), np.float32)


def fit(groceries: Grocery, chosen: npt.NDArray[np.bool_]) -> Projection:
    """Learns which directions differ between photos of one product, and plays them down.

    Args:
        groceries: All products.
        chosen: Which pictures to learn from.
    """
    features, products = groceries.features[chosen], groceries.products[chosen]
    is_catalogue = groceries.is_catalogue[chosen]
    mean = features.mean(axis=0)
    gram = (features - mean) @ (features - mean).T
    values, vectors = np.linalg.eigh(gram.astype(np.float64))
    values, vectors = values[::-1][:PROJECTED], vectors[:, ::-1][:, :PROJECTED]
    axes = (features - mean).T @ (vectors / np.sqrt(np.maximum(values, 1e-9)))
    points = (features - mean) @ axes
    within, steps = [], []
    for product in np.unique(products):
        own = points[products == product]
        within.append(own - own.mean(axis=0))
        first = is_catalogue[products == product]
        steps.append(own[first].mean(axis=0) - own[~first].mean(axis=0))
    spread = covariance(np.concatenate(within)) + DOMAIN_WEIGHT * covariance(np.stack(steps))
    even = np.trace(spread) / len(spread) * np.eye(len(spread))
    values, vectors = np.linalg.eigh((1 - SHRINKAGE) * spread + SHRINKAGE * even)
    matrix = axes @ (vectors / np.sqrt(values))
    # A scale without meaning, near the length of a unit vector.
    matrix /= np.linalg.norm((features - mean) @ matrix, axis=1).mean()
    return Projection(mean.astype(np.float32), matrix.astype(np.float32))


def covariance(deviations: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return deviations.T @ deviations / len(deviations)


@dataclass(frozen=True)
class Told:
    """What joins the embeddings of pictures for their kinds."""

    always: Array
    gated: Array
    """As far as there is clothing: what `Product` gives."""


def told_kinds(kind: torch.nn.Linear, pooled: torch.Tensor) -> Told:
    weighed = probabilities(kind, pooled) * KIND_SHARE**0.5
    clothing = Clothing(Backbone(SIDE_PX, SIDE_PX).network._fc)  # noqa: SLF001
    with torch.inference_mode():
        _, counts = clothing(overall(pooled))
    return Told(weighed, weighed * counts.numpy())


def joined(projected: Array, kinds: Array) -> Array:
    """Embeds as `Product` does, unit length."""
    return unit(np.concatenate([projected, kinds], axis=1))


def measure_retrieval(
    groceries: Grocery, clothes: Garments, folds: list[list[str]], kinds: Sequence[Told]
) -> None:
    """Asks with shelf photos for their catalogue picture among all, five folds by product.

    Args:
        groceries: All products.
        clothes: Of which the held-out ones are searched among themselves.
        folds: Names of products.
        kinds: Of the groceries and of the clothes.
    """
    raw = Projection(np.zeros(CHANNELS, np.float32), np.eye(CHANNELS, dtype=np.float32))
    names = sorted({name for fold in folds for name in fold})
    features = groceries.features, tame(overall(clothes.pooled)).numpy()
    hits: dict[str, list[npt.NDArray[np.bool_]]] = {}
    precisions: dict[str, list[float]] = {}
    for fold in folds:
        held_out = np.isin(groceries.products, [names.index(name) for name in fold])
        queries = held_out & ~groceries.is_catalogue
        trained = fit(groceries, ~held_out)
        bare = [trained(own) for own in features]
        ways = {
            "untrained": [raw(own) for own in features],
            "trained": bare,
            "trained, kinds of all": [
                joined(own, told.always) for own, told in zip(bare, kinds, strict=True)
            ],
            "trained, kinds": [
                joined(own, told.gated) for own, told in zip(bare, kinds, strict=True)
            ],
        }
        cosines = {
            way: vectors[queries] @ vectors[groceries.is_catalogue].T
            for way, (vectors, _) in ways.items()
        }
        if groceries.sscd is not None:
            copies = groceries.sscd[queries] @ groceries.sscd[groceries.is_catalogue].T
            cosines |= {f"{way}, SSCD": own + SSCD_WEIGHT * copies for way, own in cosines.items()}
            cosines["SSCD alone"] = copies
        for way, scores in cosines.items():
            ranked = np.argsort(-scores, axis=1)
            hits.setdefault(way, []).append(ranked == groceries.products[queries][:, None])
        for way, (_, vectors) in ways.items():
            precisions.setdefault(way, []).append(precision_of_kind(vectors, clothes))
    print_retrieval(hits, precisions)


def print_retrieval(
    hits: dict[str, list[npt.NDArray[np.bool_]]], precisions: dict[str, list[float]]
) -> None:
    print("shelf photo -> 55 catalogue pictures, products never trained on, five folds")
    for way, parts in hits.items():
        right = np.concatenate(parts)
        at = {k: right[:, :k].any(axis=1).mean() for k in (1, 5, 10)}
        print(f"  {way:27} R@1 {at[1]:.3f}  R@5 {at[5]:.3f}  R@10 {at[10]:.3f}  n={len(right)}")
    print("garments, precision at 5 of the kind, held-out photos among themselves, mean of folds")
    for way, values in precisions.items():
        print(f"  {way:27} {np.mean(values):.3f}")


def compare(exact: Path, quantized: Path, pictures: list[Picture]) -> None:
    """Prints what 8 bits cost and save, on pictures that did not set the ranges."""
    reference: list[Array] = []
    for file in (exact, quantized):
        for threads in (1, 2):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            session = onnxruntime.InferenceSession(file, options)
            found, took_ms = [], []
            for picture in pictures:
                start = time.perf_counter()
                found.append(session.run(None, {"image": picture[None]}))
                took_ms.append((time.perf_counter() - start) * 1000)
            outputs = [np.concatenate(parts) for parts in zip(*found, strict=True)]
            reference = reference or outputs
            cosines = (unit(outputs[0]) * unit(reference[0])).sum(axis=1)
            count = len(KINDS)
            same = outputs[1][:, :count].argmax(1) == reference[1][:, :count].argmax(1)
            print(
                f"{file.stem}: {file.stat().st_size / 1e6:.1f} MB, {threads} thread(s) "
                f"{np.median(took_ms):.0f} ms a picture, cosine to float32 {cosines.mean():.4f} "
                f"(least {cosines.min():.4f}), same kind {same.mean():.3f}"
            )


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
