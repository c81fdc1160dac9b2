"""Second part of training: the student learns to separate things by its own vectors.

The student describes both stored elements and queries. Head and last stage are therefore trained
with a contrastive loss between each window and the student's own vectors of the clean views of all
things (a memory bank: Wu et al., "Unsupervised feature learning via non-parametric instance
discrimination", CVPR 2018; here the vectors of some things of the step receive gradients, too).
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
TEACHER_WEIGHT = 0.5
"""Weight of the cosine to the teacher's vectors, of windows; of clean views it is half."""
GROUND_WEIGHT = 0.5
"""Weight of the loss that keeps windows without known things away from all drawings."""
GROUND_WINDOWS, GROUND_MARGIN, GROUND_NEAREST = 3, 0.15, 5
MAX_GROUND_OVERLAP = 0.15
LIVE = 16
"""Number of things per step whose own vectors receive gradients; other vectors are constants."""
KIN = 0.6
"""Minimum cosine by the teacher of things that are not negatives of each other; neither are things
of the same photo."""
BATCH = 40
"""Clean views that are described at a time."""
MASKED_LOGIT = -30.0
PEAK_RATE, FLOOR_RATE = 8e-4, 1e-5
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
    """What the loss uses of all things."""

    teacher: torch.Tensor
    """Vectors of the teacher, [things, 512]."""
    photos: torch.Tensor
    """Number of each thing's photo, a unique negative number for drawings, [things]."""
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

    def kin(self, targets: torch.Tensor) -> torch.Tensor:
        """Return which things are not negatives of each target, [targets, things]."""
        are_kin = self.photos[targets][:, None] == self.photos[None]
        are_kin |= self.teacher[targets] @ self.teacher.T > KIN
        are_kin[torch.arange(len(targets)), targets] = False
        return are_kin


def tune(work: Path, minutes: float, device: str) -> None:
    """Train head and last stage, from the distilled head on.

    Args:
        work: Folder of shards, views and weights.
        minutes: Time to train; CPU time without an accelerator.
        device: PyTorch device.
    """
    rng = random.Random(5)
    torch.manual_seed(5)
    targets = Targets.of(*load_targets(work), device)
    student = Student().to(device)
    student.head.load_state_dict(torch.load(work / "distilled.pt", map_location=device))
    student.eval()  # keeps batch statistics
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
            contrast, right, cosine = sums[:3] / sums[3]
            print(f"{schedule.progress:.3f} step {step}: contrast {contrast:.3f}, "
                  f"right {right:.3f}, cosine {cosine:.3f}", flush=True)  # fmt: skip
            sums[:] = 0
        if step % 200 == 0:
            torch.save(student.state_dict(), work / "tuned.pt")
    torch.save(student.state_dict(), work / "tuned.pt")


def losses(
    student: Student, bank: MemoryBank, targets: Targets, batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, tuple[float, float, float]]:
    """Return the loss, and three figures of the windows with things.

    The figures are the contrastive loss, the share whose nearest thing is right, and the mean
    cosine to the teacher.
    """
    is_used = batch["things"] >= 0
    columns = int(is_used.sum(1).max())
    windows, is_used = batch["windows"][:, :columns], is_used[:, :columns]
    ground, is_ground = ground_windows(windows, is_used)
    all_windows = torch.cat([windows, ground], 1)
    vectors = student(batch["c8"].float(), batch["c16"].float(), all_windows)
    of_things = vectors[:, :columns][is_used]
    things = batch["things"][:, :columns][is_used].long()
    shown = things.unique()
    live = shown[torch.randperm(len(shown))[:LIVE].to(shown.device)]
    fresh = bank.describe(student, live)
    logits = of_things @ bank.vectors.index_copy(0, live, fresh).T / TEMPERATURE
    logits = logits.masked_fill(targets.kin(things), MASKED_LOGIT)
    contrast = torch.nn.functional.cross_entropy(logits, things)
    cosine = (of_things * targets.teacher[things]).sum(1).mean()
    own_cosine = (fresh * targets.teacher[live]).sum(1).mean()
    loss = contrast + TEACHER_WEIGHT * ((1 - cosine) + (1 - own_cosine) / 2)
    if is_ground.any():
        similarities = vectors[:, columns:][is_ground] @ bank.vectors[targets.is_drawn].T
        nearest = similarities.topk(GROUND_NEAREST, 1).values
        loss = loss + GROUND_WEIGHT * (nearest - GROUND_MARGIN).clamp(min=0).mean()
    bank.vectors[live] = fresh.detach()
    right = (logits.argmax(1) == things).float().mean()
    return loss, (contrast.item(), right.item(), cosine.item())


def ground_windows(
    windows: torch.Tensor, is_used: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random windows [N, K, 4] and which of them overlap no window with a thing, [N, K].

    In pictures that a thing fills, all of them overlap it.
    """
    device, count = windows.device, len(windows)
    size = torch.rand(count, GROUND_WINDOWS, 2, device=device) * 0.35 + 0.22
    low = torch.rand(count, GROUND_WINDOWS, 2, device=device) * (1 - size)
    ground = torch.cat([low, low + size], -1)
    first = torch.maximum(ground[:, :, None, :2], windows[:, None, :, :2])
    last = torch.minimum(ground[:, :, None, 2:], windows[:, None, :, 2:])
    shared = (last - first).clamp(min=0).prod(-1) / size.prod(-1)[:, :, None]
    covered = (shared * is_used[:, None, :]).max(-1).values
    return ground, covered < MAX_GROUND_OVERLAP
