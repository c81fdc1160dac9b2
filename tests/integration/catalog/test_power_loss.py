"""Acknowledged writes survive a power loss. `tests/faults/power.py` is the long form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.loop_disk import LoopDisk, loop_disk, unsupported
from tests.faults.model import Model
from tests.faults.power import power_round
from tests.waiting import until


@pytest.fixture
def disk() -> Iterator[LoopDisk]:
    """Return an ext4 disk of its own; it takes root and loop devices."""
    if reason := unsupported():
        pytest.skip(f"a power loss can't be simulated here: it {reason}")
    with loop_disk() as disk:
        yield disk


@pytest.mark.parametrize(
    "settings",
    [{}, {"INDEXING_THRESHOLD": "50"}, {"FLUSH_POINTS": "30"}],
    ids=["import", "index builds", "flushes"],
)
async def test_every_acknowledged_change_survives_a_power_loss(
    tmp_path: Path, disk: LoopDisk, settings: dict[str, str]
) -> None:
    model = Model()
    acknowledged = until(lambda: model.acknowledged_count >= 100)
    result = await power_round(disk, model, acknowledged, seed=1, log=tmp_path / "log", **settings)
    assert not result["problems"]
    assert result["acknowledged"] >= 100
