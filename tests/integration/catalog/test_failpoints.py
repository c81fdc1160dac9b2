"""A Catalog killed between the steps of a change keeps what it acknowledged, and nothing by half.

`python -m tests.faults.kill` kills it at every failpoint; this is a selection.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.kill import kill_round
from tests.faults.model import Model


@pytest.mark.parametrize(
    "failpoint",
    ["put.after_blobs:5", "points.after_write:9", "delete.after_points", "switch.after_current"],
)
async def test_a_kill_between_two_steps_loses_and_breaks_nothing(
    tmp_path: Path, failpoint: str
) -> None:
    result = await kill_round(tmp_path / "data", Model(), failpoint, seed=1, log=tmp_path / "log")
    assert result["reached"]
    assert not result["problems"]
