"""Second part of training: contrastive learning with a memory bank.

In a library the student embeds both stored elements and queries. The head and the last stage are
therefore trained with a contrastive loss between each window and the student's own vectors of the
clean views of all things (a memory bank: Wu et al., "Unsupervised feature learning via
non-parametric instance discrimination", CVPR 2018; here some vectors of the bank also receive
gradients in each step).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from imagesearch_services.models.dense.examples import Shards
from imagesearch_services.models.dense.network import TRUNK_SIZE, Head
from imagesearch_services.models.dense.schedule import Schedule
from imagesearch_services.models.dense.teacher import load_targets
from imagesearch_services.models.dense.things import Thing
from imagesearch_services.models.efficientnet_lite2.backbone import LastStage

TEMPERATURE = 0.06
"""Temperature of the contrastive loss."""
TEACHER_WEIGHT = 0.5
"""Weight of the cosine loss between windows and the teacher's vectors; clean views have half."""
BACKGROUND_WEIGHT = 0.5
"""Weight of the loss that keeps background windows away from all drawings."""
BACKGROUND_WINDOWS = 3
"""Number of random background windows per picture."""
BACKGROUND_MARGIN = 0.15
"""Cosine between a background window and a drawing above which the loss is positive."""
BACKGROUND_NEAREST = 5
"""Number of nearest drawings that contribute to the loss of a background window."""
MAX_BACKGROUND_OVERLAP = 0.15
"""Maximum share of a background window that a window with a thing covers."""
LIVE = 16
"""Number of vectors of the memory bank that receive gradients in a step; the others are fixed."""
MAX_NEGATIVE_COSINE = 0.6
"""Maximum cosine between the teacher's vectors of a thing and of its negatives.

Closer things are excluded from the negatives, and so are things of the same photo.
"""
BATCH = 40
"""Number of clean views that are embedded at a time."""
MASKED_LOGIT = -30.0
"""Logit of excluded things."""
PEAK_RATE, FLOOR_RATE = 8e-4, 1e-5
"""Highest and lowest learning rate of the head."""
STAGE_RATE = 0.4
"""Learning rate of the last stage relative to the head's."""


class Student(torch.nn.Module):
    """The trained parts: head and last stage."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.stage = Head(), LastStage(*TRUNK_SIZE)

    def forward(self, c8: torch.Tensor, c16: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        """Return vectors [N, K, 512] of windows [N, K, 4] (`Head.forward`)."""
        with torch.autocast(c8.device.type, torch.bfloat16):
            vectors: torch.Tensor = self.head(c8, c16, self.stage(c16), windows)
        return vectors.float()


class MemoryBank:
    """The student's own vectors of the clean views of all things."""

    def __init__(self, folder: Path, student: Student, device: str) -> None:
        shards = [np.load(file) for file in sorted(folder.glob("*.npz"))]
        self._c8, self._c16 = (
            np.concatenate([shard[name] for shard in shards]) for name in ("c8", "c16")
        )
        self._device = device
        with torch.no_grad():
            parts = torch.arange(len(self._c8)).split(BATCH)
            self.vectors = torch.cat([self.describe(student, rows) for rows in parts])

    def describe(self, student: Student, rows: torch.Tensor) -> torch.Tensor:
        """Return the current vectors of some things, [rows, 512]."""
        c8, c16 = (
            torch.from_numpy(maps[rows.cpu().numpy()]).to(self._device).float()
            for maps in (self._c8, self._c16)
        )
        whole = torch.tensor([[0.0, 0, 1, 1]], device=self._device).expand(len(rows), 1, 4)
        return student(c8, c16, whole)[:, 0]


@dataclass(frozen=True)
class Targets:
    """The training targets of all things."""

    teacher: torch.Tensor
    """Vectors of the teacher, [things, 512]."""
    photos: torch.Tensor
    """Number of the photo of each thing, [things]; every drawing has a unique negative number."""
    is_drawn: torch.Tensor
    """Whether each thing is a drawing, [things]."""

    @classmethod
    def of(cls, things: list[Thing], teacher: np.ndarray, device: str) -> Targets:
        numbers: dict[str, int] = {}
        photos = [
            -1 - row if thing.photo is None else numbers.setdefault(thing.photo, len(numbers))
            for row, thing in enumerate(things)
        ]
        of_photo = torch.tensor(photos, device=device)
        return cls(torch.from_numpy(teacher).to(device), of_photo, of_photo < 0)

    def excluded_negatives(self, targets: torch.Tensor) -> torch.Tensor:
        """Return which other things are not negatives of each target, [targets, things]."""
        is_excluded = self.photos[targets][:, None] == self.photos[None]
        is_excluded |= self.teacher[targets] @ self.teacher.T > MAX_NEGATIVE_COSINE
        is_excluded[torch.arange(len(targets)), targets] = False
        return is_excluded


def tune(work: Path, minutes: float, device: str) -> None:
    """Train the head and the last stage, starting from the distilled head.

    Args:
        work: Folder of shards, views and weights.
        minutes: Training time; CPU time if the device is the CPU.
        device: PyTorch device.
    """
    rng = random.Random(5)
    torch.manual_seed(5)
    targets = Targets.of(*load_targets(work), device)
    student = Student().to(device)
    student.head.load_state_dict(torch.load(work / "distilled.pt", map_location=device))
    student.eval()  # keeps the statistics of batch normalization fixed
    bank = MemoryBank(work / "views", student, device)
    optimizer = torch.optim.AdamW(
        [
            {"params": student.head.parameters(), "scale": 1.0},
            {"params": student.stage.parameters(), "scale": STAGE_RATE},
        ],
        lr=PEAK_RATE,
        weight_decay=0.02,
    )
    schedule = Schedule(minutes, device, PEAK_RATE, FLOOR_RATE)
    sums = np.zeros(4)
    for step, loaded in enumerate(Shards(work / "shards", rng).batches(), 1):
        if schedule.is_over:
            break
        schedule.apply(optimizer, step)
        batch = {key: value.to(device) for key, value in loaded.items()}
        loss, figures = losses(student, bank, targets, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 3.0)
        optimizer.step()
        sums += (*figures, 1)
        if step % 50 == 0:
            contrast, accuracy, cosine = sums[:3] / sums[3]
            print(f"{schedule.progress:.3f} step {step}: contrast {contrast:.3f}, "
                  f"accuracy {accuracy:.3f}, cosine {cosine:.3f}", flush=True)  # fmt: skip
            sums[:] = 0
        if step % 200 == 0:
            torch.save(student.state_dict(), work / "tuned.pt")
    torch.save(student.state_dict(), work / "tuned.pt")


def losses(
    student: Student, bank: MemoryBank, targets: Targets, batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, tuple[float, float, float]]:
    """Return the loss, and three figures over the windows with things.

    The figures are the contrastive loss, the accuracy (the share of windows whose nearest thing is
    the right one), and the mean cosine to the teacher.
    """
    is_used = batch["things"] >= 0
    columns = int(is_used.sum(1).max())
    windows, is_used = batch["windows"][:, :columns], is_used[:, :columns]
    background, is_background = background_windows(windows, is_used)
    all_windows = torch.cat([windows, background], 1)
    vectors = student(batch["c8"].float(), batch["c16"].float(), all_windows)
    of_things = vectors[:, :columns][is_used]
    things = batch["things"][:, :columns][is_used].long()
    shown = things.unique()
    live = shown[torch.randperm(len(shown))[:LIVE].to(shown.device)]
    fresh = bank.describe(student, live)
    logits = of_things @ bank.vectors.index_copy(0, live, fresh).T / TEMPERATURE
    logits = logits.masked_fill(targets.excluded_negatives(things), MASKED_LOGIT)
    contrast = torch.nn.functional.cross_entropy(logits, things)
    cosine = (of_things * targets.teacher[things]).sum(1).mean()
    view_cosine = (fresh * targets.teacher[live]).sum(1).mean()
    loss = contrast + TEACHER_WEIGHT * ((1 - cosine) + (1 - view_cosine) / 2)
    if is_background.any():
        similarities = vectors[:, columns:][is_background] @ bank.vectors[targets.is_drawn].T
        nearest = similarities.topk(BACKGROUND_NEAREST, 1).values
        loss = loss + BACKGROUND_WEIGHT * (nearest - BACKGROUND_MARGIN).clamp(min=0).mean()
    bank.vectors[live] = fresh.detach()
    accuracy = (logits.argmax(1) == things).float().mean()
    return loss, (contrast.item(), accuracy.item(), cosine.item())


def background_windows(
    windows: torch.Tensor, is_used: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random windows [N, K, 4], and which of them show background only, [N, K].

    A background window hardly overlaps any window with a thing (`MAX_BACKGROUND_OVERLAP`). Pictures
    that a thing fills have no background windows.
    """
    device, count = windows.device, len(windows)
    size = torch.rand(count, BACKGROUND_WINDOWS, 2, device=device) * 0.35 + 0.22
    low = torch.rand(count, BACKGROUND_WINDOWS, 2, device=device) * (1 - size)
    background = torch.cat([low, low + size], -1)
    first = torch.maximum(background[:, :, None, :2], windows[:, None, :, :2])
    last = torch.minimum(background[:, :, None, 2:], windows[:, None, :, 2:])
    shared = (last - first).clamp(min=0).prod(-1) / size.prod(-1)[:, :, None]
    covered = (shared * is_used[:, None, :]).max(-1).values
    return background, covered < MAX_BACKGROUND_OVERLAP
