"""Second part of learning: what tells a thing from all others, by the student's own vectors.

Stored elements and queries are both described by the student. So head and last stage go on with
each window against the student's own vectors of every thing, seen clean, as it would be stored
(a memory bank: Wu et al., "Unsupervised feature learning via non-parametric instance
discrimination", CVPR 2018; those of a step's own things learn, too).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from imagesearch_services.models.dense import bank
from imagesearch_services.models.dense.bank import Thing
from imagesearch_services.models.dense.examples import Shards
from imagesearch_services.models.dense.network import TRUNK_SIZE, Head
from imagesearch_services.models.dense.schedule import Schedule
from imagesearch_services.models.efficientnet_lite2.backbone import LastStage

TEMPERATURE = 0.06
TEACHER_WEIGHT = 0.5
"""Of staying near the teacher's vectors: windows in full, clean views by half."""
GROUND_WEIGHT = 0.5
"""Of windows that show nothing known being like nothing that was drawn."""
GROUND_WINDOWS, GROUND_MARGIN, GROUND_NEAREST = 3, 0.15, 5
LIVE = 16
"""Things of a step whose own vectors learn; the others' are as they were last seen."""
KIN = 0.6
"""Things as alike as this to the teacher are not held against each other, nor are those of one
photo."""
BATCH = 40
SMALLEST = -30.0
PEAK_RATE, FLOOR_RATE = 8e-4, 1e-5
STAGE_RATE = 0.4
"""Of the last stage, against the head's."""


class Student(torch.nn.Module):
    """Head and last stage."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.stage = Head(), LastStage(*TRUNK_SIZE)

    def forward(self, c8: torch.Tensor, c16: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        """Vectors [N, K, 512] of windows [N, K, 4], as the head takes them."""
        with torch.autocast(c8.device.type, torch.bfloat16):
            found: torch.Tensor = self.head(c8, c16, self.stage(c16), windows)
        return found.float()


class Own:
    """The student's own vectors of all things, seen clean."""

    def __init__(self, folder: Path, student: Student, device: str) -> None:
        shards = [np.load(file) for file in sorted(folder.glob("*.npz"))]
        self._c8, self._c16 = (
            np.concatenate([one[name] for one in shards]) for name in ("c8", "c16")
        )
        self._device = device
        with torch.no_grad():
            parts = torch.arange(len(self._c8)).split(BATCH)
            self.vectors = torch.cat([self.seen(student, rows) for rows in parts])

    def seen(self, student: Student, rows: torch.Tensor) -> torch.Tensor:
        """Looks at some things anew, [rows, 512]."""
        c8, c16 = (
            torch.from_numpy(maps[rows.cpu().numpy()]).to(self._device).float()
            for maps in (self._c8, self._c16)
        )
        whole = torch.tensor([[0.0, 0, 1, 1]], device=self._device).expand(len(rows), 1, 4)
        return student(c8, c16, whole)[:, 0]


@dataclass(frozen=True)
class Known:
    """What is known of all things."""

    teacher: torch.Tensor
    """Its vectors, [things, 512]."""
    photos: torch.Tensor
    """Which photo each is of; a number of its own where it was drawn, [things]."""
    is_drawn: torch.Tensor

    @classmethod
    def of(cls, things: list[Thing], teacher: np.ndarray, device: str) -> Known:
        numbers: dict[str, int] = {}
        photos = [
            -1 - row if thing.photo is None else numbers.setdefault(thing.photo, len(numbers))
            for row, thing in enumerate(things)
        ]
        found = torch.tensor(photos, device=device)
        return cls(torch.from_numpy(teacher).to(device), found, found < 0)

    def kin(self, targets: torch.Tensor) -> torch.Tensor:
        """Which things are not to be told from each target, [targets, things]."""
        found = self.photos[targets][:, None] == self.photos[None]
        found |= self.teacher[targets] @ self.teacher.T > KIN
        found[torch.arange(len(targets)), targets] = False
        return found


def tune(work: Path, minutes: float, device: str) -> None:
    """Learns for so many minutes, from the distilled head on.

    Args:
        work: Where shards, views and weights are.
        minutes: Of processor time without an accelerator, else by the clock.
        device: Torch's name of it.
    """
    chance = random.Random(5)
    torch.manual_seed(5)
    known = Known.of(*bank.load(work), device)
    student = Student().to(device)
    student.head.load_state_dict(torch.load(work / "distilled.pt", map_location=device))
    student.eval()  # batch statistics stay
    own = Own(work / "views", student, device)
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
    for step, held in enumerate(Shards(work / "shards", chance).batches(), 1):
        if schedule.is_over:
            break
        schedule.apply(optimizer, step)
        batch = {key: value.to(device) for key, value in held.items()}
        loss, figures = losses(student, own, known, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 3.0)
        optimizer.step()
        sums += (*figures, 1)
        if step % 50 == 0:
            contrast, right, cosine = sums[:3] / sums[3]
            print(f"{schedule.gone:.3f} step {step}: contrast {contrast:.3f}, "
                  f"right {right:.3f}, cosine {cosine:.3f}", flush=True)  # fmt: skip
            sums[:] = 0
        if step % 200 == 0:
            torch.save(student.state_dict(), work / "tuned.pt")
    torch.save(student.state_dict(), work / "tuned.pt")


def losses(
    student: Student, own: Own, known: Known, batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, tuple[float, float, float]]:
    """The loss; the contrast, how often the right thing is nearest, the cosine to the teacher."""
    used = batch["things"] >= 0
    columns = int(used.sum(1).max())
    windows, used = batch["windows"][:, :columns], used[:, :columns]
    ground, is_ground = ground_windows(windows, used)
    seen = student(batch["c8"].float(), batch["c16"].float(), torch.cat([windows, ground], 1))
    found, targets = seen[:, :columns][used], batch["things"][:, :columns][used].long()
    shown = targets.unique()
    live = shown[torch.randperm(len(shown))[:LIVE].to(shown.device)]
    fresh = own.seen(student, live)
    logits = found @ own.vectors.index_copy(0, live, fresh).T / TEMPERATURE
    logits = logits.masked_fill(known.kin(targets), SMALLEST)
    contrast = torch.nn.functional.cross_entropy(logits, targets)
    cosine = (found * known.teacher[targets]).sum(1).mean()
    own_cosine = (fresh * known.teacher[live]).sum(1).mean()
    loss = contrast + TEACHER_WEIGHT * ((1 - cosine) + (1 - own_cosine) / 2)
    if is_ground.any():
        likeness = seen[:, columns:][is_ground] @ own.vectors[known.is_drawn].T
        nearest = likeness.topk(GROUND_NEAREST, 1).values
        loss = loss + GROUND_WEIGHT * (nearest - GROUND_MARGIN).clamp(min=0).mean()
    own.vectors[live] = fresh.detach()
    right = (logits.argmax(1) == targets).float().mean()
    return loss, (contrast.item(), right.item(), cosine.item())


def ground_windows(windows: torch.Tensor, used: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Some windows anywhere, [N, K, 4], and which of them touch none that shows something, [N, K].

    In pictures of one thing, which fills them, none does.
    """
    device, count = windows.device, len(windows)
    size = torch.rand(count, GROUND_WINDOWS, 2, device=device) * 0.35 + 0.22
    low = torch.rand(count, GROUND_WINDOWS, 2, device=device) * (1 - size)
    found = torch.cat([low, low + size], -1)
    first = torch.maximum(found[:, :, None, :2], windows[:, None, :, :2])
    last = torch.minimum(found[:, :, None, 2:], windows[:, None, :, 2:])
    shared = (last - first).clamp(min=0).prod(-1) / size.prod(-1)[:, :, None]
    covered = (shared * used[:, None, :]).max(-1).values
    return found, covered < 0.15
