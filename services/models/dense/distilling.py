"""First part of learning: the head gives the teacher's vector of a thing, wherever it is seen."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import torch

from imagesearch_services.models.dense import bank
from imagesearch_services.models.dense.examples import MAPS, Shards
from imagesearch_services.models.dense.network import Head
from imagesearch_services.models.dense.schedule import Schedule

RELATION_TEMPERATURE = 0.06
RELATION_WEIGHT = 0.25
PEAK_RATE, FLOOR_RATE = 2e-3, 2e-5


def distil(work: Path, minutes: float, device: str) -> None:
    """Learns for so many minutes, the rate falling towards the end of them.

    Args:
        work: Where shards and vectors are, and the weights are kept.
        minutes: Of processor time without an accelerator, else by the clock.
        device: Torch's name of it.
    """
    chance = random.Random(time.time_ns())
    teacher = torch.from_numpy(bank.load(work)[1]).to(device)
    head, checkpoint = Head().to(device), work / "distilled.pt"
    if checkpoint.exists():
        head.load_state_dict(torch.load(checkpoint, map_location=device))
    optimizer = torch.optim.AdamW(head.parameters(), lr=PEAK_RATE, weight_decay=0.02)
    schedule = Schedule(minutes, device, PEAK_RATE, FLOOR_RATE)
    sums = np.zeros(3)
    for step, held in enumerate(Shards(work / "shards", chance).batches(), 1):
        if schedule.is_over:
            break
        schedule.apply(optimizer, step)
        batch = {key: value.to(device) for key, value in held.items()}
        loss, cosine, relation = losses(head, batch, teacher)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 3.0)
        optimizer.step()
        sums += (cosine, relation, 1)
        if step % 25 == 0:
            print(f"{schedule.gone:.3f} step {step}: cosine {sums[0] / sums[2]:.4f}, "
                  f"relation {sums[1] / sums[2]:.3f}", flush=True)  # fmt: skip
            sums[:] = 0
        if step % 100 == 0:
            torch.save(head.state_dict(), checkpoint)
    torch.save(head.state_dict(), checkpoint)


def losses(
    head: Head, batch: dict[str, torch.Tensor], teacher: torch.Tensor
) -> tuple[torch.Tensor, float, float]:
    """The loss; the mean cosine to the teacher; how far relations to all other things are off."""
    c8, c16, c32 = (batch[name].float() for name in MAPS)
    used = batch["things"] >= 0
    columns = int(used.sum(1).max())
    # Half as long where a processor has instructions for bfloat16; windows are averaged exactly.
    with torch.autocast(c8.device.type, torch.bfloat16):
        found = head(c8, c16, c32, batch["windows"][:, :columns])[used[:, :columns]]
    wanted = teacher[batch["things"][used].long()]
    cosine = (found * wanted).sum(1)
    truth = torch.softmax(wanted @ teacher.T / RELATION_TEMPERATURE, 1)
    guess = torch.log_softmax(found @ teacher.T / RELATION_TEMPERATURE, 1)
    relation = -(truth * guess).sum(1).mean() + (truth * truth.clamp(min=1e-9).log()).sum(1).mean()
    loss = (1 - cosine).mean() + RELATION_WEIGHT * relation
    return loss, cosine.mean().item(), relation.item()
