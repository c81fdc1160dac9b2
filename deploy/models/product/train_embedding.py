"""Trains the product embedding and the attribute heads, measures both, and exports them.

    pip install -e '.[export,embedding]'
    python deploy/models/product/train_embedding.py --pictures ../shared/data --work .cache/product

One forward pass of EfficientNet-Lite2 a picture, kept in the work folder as it goes (a run that was
cut short goes on where it stopped); everything after that is closed form and takes seconds.
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
from backbone import STRIDE_32, Backbone, export, quantize
from pictures import Picture, catalogue, crop, letterbox, read, relative, shelf, squash

from imagesearch_services.embedding.subjects.border import subject_on_plain_background

SIDE_PX = 384
SSCD_SIDE_PX = 288
CHANNELS = 1280
POWER = 0.7
"""Tames channels that fire for one strong cue."""
PROJECTED = 246
"""Components of the embedding that are learned from products; the kinds of garment follow."""
KIND_SHARE = 0.6
"""Weight of the product of two pictures' probabilities of kinds, beside the cosine of the rest."""
SHRINKAGE = 0.9
"""Towards a covariance that is the same in every direction; 0.85 to 0.97 do equally well."""
DOMAIN_WEIGHT = 1.0
"""Of the step from shelf photos to the catalogue picture, beside the spread among shelf photos."""
SSCD_WEIGHT = 0.3
"""Of SSCD's cosine beside the embedding's; as a factor on SSCD's vector, its square root."""
FOLDS = 5
CALIBRATION_STEP = 10
"""Every so manieth picture sets the ranges of 8 bits or measures their cost."""
OUTPUT = Path(__file__).parents[2] / "triton/models/product/1/model.onnx"
SPLIT = Path(__file__).with_name("embedding_split.json")

KINDS = (
    "dress", "hat", "longsleeve", "outwear", "pants", "shirt", "shoes", "shorts", "skirt",
    "t-shirt",
)  # fmt: skip
SLEEVES = ("short", "long")
SLEEVE_OF_KIND = {"t-shirt": 0, "longsleeve": 1}

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
        return unit((features - self.mean) @ self.matrix)


@dataclass(frozen=True)
class Grocery:
    features: Array
    products: npt.NDArray[np.intp]
    is_catalogue: npt.NDArray[np.bool_]
    sscd: Array | None


@dataclass(frozen=True)
class Garments:
    features: Array
    kinds: npt.NDArray[np.intp]
    is_held_out: npt.NDArray[np.bool_]


class Extractor(torch.nn.Module):
    """uint8 RGB [N, 384, 384, 3] → tamed averages of the last map, unit length [N, 1280]."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone(SIDE_PX, SIDE_PX)

    def averages(self, image: torch.Tensor) -> torch.Tensor:
        average: torch.Tensor = self.backbone(image)[-1].mean((2, 3))
        return average

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return tame(self.averages(image))


def tame(average: torch.Tensor) -> torch.Tensor:
    tamed = torch.nn.functional.normalize(average).clamp(min=0) ** POWER
    return torch.nn.functional.normalize(tamed)


class Product(torch.nn.Module):
    """Gives `embedding` [N, 256], `attributes` [N, 12] and `categories` [N, 14].

    The embedding is the projection, unit length, then the probabilities of KINDS, weighed.
    Attributes are the probabilities of KINDS, then of SLEEVES. Categories are the sums of the
    probabilities of ImageNet's classes, in the order of imagenet_categories.json, OTHER last.
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
        members = torch.zeros(1000, len(IMAGENET_CATEGORIES) + 1)
        for column, classes in enumerate(IMAGENET_CATEGORIES.values()):
            members[classes, column] = 1
        members[:, -1] = 1 - members.sum(1)
        self.register_buffer("members", members)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        average = self.extractor.averages(image)
        features = tame(average)
        kind, sleeve = self.kind(features).softmax(1), self.sleeve(features).softmax(1)
        classes = self.extractor.backbone.network._fc(average).softmax(1)  # noqa: SLF001
        projected = torch.nn.functional.normalize(self.project(features))
        embedding = [projected, kind * KIND_SHARE**0.5]
        return torch.cat(embedding, 1), torch.cat([kind, sleeve], 1), classes @ self.members


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--pictures", type=Path, required=True, help="the folder of data sets")
    parser.add_argument("--work", type=Path, required=True, help="keeps features between runs")
    parser.add_argument("--sscd", type=Path, help="sscd.onnx, to measure what it adds")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    options.work.mkdir(parents=True, exist_ok=True)

    split = json.loads(SPLIT.read_text())
    extractor = options.work / "features.onnx"
    if not extractor.exists():
        export(Extractor(), SIDE_PX, SIDE_PX, ["features"], extractor)
    features = cached_features(options.pictures, split, extractor, options.work / "features")
    sscd = None
    if options.sscd:
        files = relative([*catalogue(options.pictures), *shelf(options.pictures)], options.pictures)
        sscd = np.stack(cached(files, options.pictures, options.sscd, options.work / "sscd"))
    groceries, clothes = arrange(options.pictures, split, features, sscd)

    kind, sleeve = train_heads(clothes)
    measure_retrieval(groceries, clothes, split["folds"], kind)
    projection = fit(groceries, np.ones(len(groceries.products), bool))
    vectors = with_kinds(projection, kind, clothes.features)
    print(
        f"garments, precision at 5 of the kind: {precision_of_kind(vectors, clothes):.3f} (release)"
    )
    outputs = ["embedding", "attributes", "categories"]
    exact = options.work / "product.onnx"
    export(Product(projection, kind, sleeve), SIDE_PX, SIDE_PX, outputs, exact)
    learned = [*relative(shelf(options.pictures), options.pictures), *split["garments_learned"]]
    pictures = (subject_of(options.pictures / name) for name in learned[::CALIBRATION_STEP])
    inputs = [letterbox(picture, SIDE_PX, SIDE_PX) for picture in pictures]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    quantize(exact, options.output, inputs[::2], last_block=STRIDE_32)
    compare(exact, options.output, inputs[1::2])


def cached_features(
    data: Path, split: dict[str, list[str]], model: Path, folder: Path
) -> dict[str, Array]:
    files = [
        *relative([*catalogue(data), *shelf(data)], data),
        *split["garments_held_out"],
        *split["garments_learned"],
    ]
    return dict(zip(files, cached(files, data, model, folder), strict=True))


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
    box = subject_on_plain_background(picture)
    return picture if box is None else crop(picture, box)


def arrange(
    data: Path, split: dict[str, list[str]], features: dict[str, Array], sscd: Array | None
) -> tuple[Grocery, Garments]:
    shop, shelves = catalogue(data), shelf(data)
    names = [file.stem for file in shop]
    groceries = Grocery(
        np.stack([features[name] for name in relative([*shop, *shelves], data)]),
        np.array([*range(len(names)), *(names.index(file.parent.name) for file in shelves)]),
        np.arange(len(shop) + len(shelves)) < len(shop),
        None if sscd is None else unit(sscd),
    )
    files = split["garments_held_out"] + split["garments_learned"]
    clothes = Garments(
        np.stack([features[name] for name in files]),
        np.array([KINDS.index(name.split("/")[1]) for name in files]),
        np.arange(len(files)) < len(split["garments_held_out"]),
    )
    return groceries, clothes


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


def measure_retrieval(
    groceries: Grocery, clothes: Garments, folds: list[list[str]], kind: torch.nn.Linear
) -> None:
    """Asks with shelf photos for their catalogue picture among all, five folds by product."""
    raw = Projection(np.zeros(CHANNELS, np.float32), np.eye(CHANNELS, dtype=np.float32))
    names = sorted({name for fold in folds for name in fold})
    hits: dict[str, list[npt.NDArray[np.bool_]]] = {}
    precisions: dict[str, list[float]] = {}
    for fold in folds:
        held_out = np.isin(groceries.products, [names.index(name) for name in fold])
        queries = held_out & ~groceries.is_catalogue
        trained = fit(groceries, ~held_out)
        ways = {
            "untrained": (raw(groceries.features), raw(clothes.features)),
            "trained": (trained(groceries.features), trained(clothes.features)),
            "trained, kinds": (
                with_kinds(trained, kind, groceries.features),
                with_kinds(trained, kind, clothes.features),
            ),
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
    print("shelf photo -> 55 catalogue pictures, products never trained on, five folds")
    for way, parts in hits.items():
        right = np.concatenate(parts)
        at = {k: right[:, :k].any(axis=1).mean() for k in (1, 5, 10)}
        print(f"  {way:20} R@1 {at[1]:.3f}  R@5 {at[5]:.3f}  R@10 {at[10]:.3f}  n={len(right)}")
    print("garments, precision at 5 of the kind, held-out photos among themselves, mean of folds")
    for way, values in precisions.items():
        print(f"  {way:20} {np.mean(values):.3f}")


def with_kinds(projection: Projection, kind: torch.nn.Linear, features: Array) -> Array:
    """Embeds as `Product` does, unit length."""
    with torch.inference_mode():
        kinds = kind(torch.from_numpy(features)).softmax(1).numpy()
    return unit(np.concatenate([projection(features), kinds * KIND_SHARE**0.5], axis=1))


def precision_of_kind(vectors: Array, clothes: Garments) -> float:
    """Share of the five nearest of each held-out photo, among the others, that are of its kind."""
    held_out = clothes.is_held_out
    cosines = vectors[held_out] @ vectors[held_out].T
    np.fill_diagonal(cosines, -1)
    nearest = np.argsort(-cosines, axis=1)[:, :5]
    kinds = clothes.kinds[held_out]
    return float((kinds[nearest] == kinds[:, None]).mean())


def train_heads(clothes: Garments) -> tuple[torch.nn.Linear, torch.nn.Linear]:
    """Trains linear heads for kind and sleeve length and prints how they do on held-out photos."""
    kind = train_head(clothes.features, clothes.kinds, clothes.is_held_out, len(KINDS), "kind")
    sleeved = np.isin(clothes.kinds, [KINDS.index(name) for name in SLEEVE_OF_KIND])
    sleeves = np.array([SLEEVE_OF_KIND.get(KINDS[index], 0) for index in clothes.kinds])
    sleeve = train_head(
        clothes.features[sleeved], sleeves[sleeved], clothes.is_held_out[sleeved], len(SLEEVES),
        "sleeve length of t-shirts and longsleeves",
    )  # fmt: skip
    return kind, sleeve


def train_head(
    features: Array,
    classes: npt.NDArray[np.intp],
    held_out: npt.NDArray[np.bool_],
    count: int,
    label: str,
) -> torch.nn.Linear:
    head = torch.nn.Linear(CHANNELS, count)
    x, y = torch.from_numpy(features), torch.from_numpy(classes)
    learned = torch.from_numpy(~held_out)
    torch.nn.init.zeros_(head.weight)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        fits = torch.nn.functional.cross_entropy(head(x[learned]), y[learned])
        value: torch.Tensor = fits + HEAD_DECAY * head.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        told = head(x[~learned]).argmax(1)
    right = (told == y[~learned]).float().mean().item()
    print(f"{label}: {right:.3f} right on {int(held_out.sum())} held-out photos")
    if count == len(KINDS):
        category = torch.tensor([CATEGORIES.index(CATEGORY_OF_KIND[name]) for name in KINDS])
        right = (category[told] == category[y[~learned]]).float().mean().item()
        print(f"category by kind: {right:.3f} right")
    return head


HEAD_DECAY = 3e-5
CATEGORY_OF_KIND = {
    "dress": "DRESS", "hat": "ACCESSORIES", "longsleeve": "TOPS", "outwear": "TOPS",
    "pants": "BOTTOMS", "shirt": "TOPS", "shoes": "SHOES", "shorts": "BOTTOMS",
    "skirt": "BOTTOMS", "t-shirt": "TOPS",
}  # fmt: skip
CATEGORIES = sorted(set(CATEGORY_OF_KIND.values()))


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
