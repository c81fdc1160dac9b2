"""First part of training: the head learns to reproduce the teacher's vectors (distillation)."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import torch

from imagesearch_services.models.dense.examples import MAPS, Shards
from imagesearch_services.models.dense.network import Head
from imagesearch_services.models.dense.schedule import Schedule
from imagesearch_services.models.dense.teacher import load_targets

RELATION_TEMPERATURE = 0.06
"""Temperature of the softmax over the similarities to all things."""
RELATION_WEIGHT = 0.25
"""Weight of the divergence between the student's and the teacher's similarities."""
PEAK_RATE, FLOOR_RATE = 2e-3, 2e-5
"""Highest and lowest learning rate."""


def distil(work: Path, minutes: float, device: str) -> None:
    """Train the head.

    Args:
        work: Folder of shards, vectors and saved weights.
        minutes: Training time; CPU time if the device is the CPU.
        device: PyTorch device.
    """
    rng = random.Random(time.time_ns())
    teacher = torch.from_numpy(load_targets(work)[1]).to(device)
    head, checkpoint = Head().to(device), work / "distilled.pt"
    if checkpoint.exists():
        head.load_state_dict(torch.load(checkpoint, map_location=device))
    optimizer = torch.optim.AdamW(head.parameters(), lr=PEAK_RATE, weight_decay=0.02)
    schedule = Schedule(minutes, device, PEAK_RATE, FLOOR_RATE)
    sums = np.zeros(3)
    for step, loaded in enumerate(Shards(work / "shards", rng).batches(), 1):
        if schedule.is_over:
            break
        schedule.apply(optimizer, step)
        batch = {key: value.to(device) for key, value in loaded.items()}
        loss, cosine, relation = losses(head, batch, teacher)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 3.0)
        optimizer.step()
        sums += (cosine, relation, 1)
        if step % 25 == 0:
            print(f"{schedule.progress:.3f} step {step}: cosine {sums[0] / sums[2]:.4f}, "
                  f"relation {sums[1] / sums[2]:.3f}", flush=True)  # fmt: skip
            sums[:] = 0
        if step % 100 == 0:
            torch.save(head.state_dict(), checkpoint)
    torch.save(head.state_dict(), checkpoint)


def losses(
    head: Head, batch: dict[str, torch.Tensor], teacher: torch.Tensor
) -> tuple[torch.Tensor, float, float]:
    """Return the loss, the mean cosine to the teacher, and the divergence of similarities."""
    c8, c16, c32 = (batch[name].float() for name in MAPS)
    used = batch["things"] >= 0
    columns = int(used.sum(1).max())
    # bfloat16 is twice as fast on CPUs that support it; windows are averaged in float32.
    with torch.autocast(c8.device.type, torch.bfloat16):
        found = head(c8, c16, c32, batch["windows"][:, :columns])[used[:, :columns]]
    targets = teacher[batch["things"][used].long()]
    cosine = (found * targets).sum(1)
    truth = torch.softmax(targets @ teacher.T / RELATION_TEMPERATURE, 1)
    guess = torch.log_softmax(found @ teacher.T / RELATION_TEMPERATURE, 1)
    relation = -(truth * guess).sum(1).mean() + (truth * truth.clamp(min=1e-9).log()).sum(1).mean()
    loss = (1 - cosine).mean() + RELATION_WEIGHT * relation
    return loss, cosine.mean().item(), relation.item()
