"""The split of the data set into stored pictures, originals of edited queries, and strangers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RELATED = Path(__file__).with_name("related.json")
"""Groups of related pictures.

`same`: pictures that were taken moments apart (SSCD similarity ≥ .86, all checked by eye).
`strangers_of_stored_series`: pictures that are not stored but share the floor, sheet, crate or
street corner with a stored picture (similarity ≥ .45; on contact sheets nearly all pairs above .45
show the same place, and pairs below .4 do so by chance).
"""

BACKGROUND = 1200
"""Number of pictures in the background set of the copy descriptor, which has no other use."""
STORED = 2300
"""Number of stored pictures."""
ORIGINALS = 150
"""Number of stored pictures to which every edit is applied."""
CALIBRATION = 350
"""Number of strangers for calibration; the benchmark uses them only as hosts of pasted copies."""


@dataclass(frozen=True, slots=True)
class Split:
    """Names of pictures, relative to the data folder."""

    background: Sequence[str]
    """Background set; neither stored nor used as queries."""
    stored: Sequence[str]
    originals: Sequence[str]
    """Stored pictures that are edited into queries."""
    strangers: Sequence[str]
    """Pictures that are not stored and belong to no series with a stored picture."""
    series_strangers: Sequence[str]
    """Pictures that are not stored but belong to a series with a stored picture; the benchmark
    reports them separately."""
    calibration: Sequence[str]
    """Strangers that are never queries of the benchmark."""


def related_pictures() -> dict[str, Any]:
    """Read the groups of related pictures (`RELATED`)."""
    groups: dict[str, Any] = json.loads(RELATED.read_text())
    return groups


def split(names: Sequence[str]) -> Split:
    """Split the pictures; keep only the first of each group of pictures taken moments apart."""
    related = related_pictures()
    repeated = {name for group in related["same"] for name in sorted(group)[1:]}
    used = [name for name in names if name not in repeated]
    background, used = used[:BACKGROUND], used[BACKGROUND:]
    stored, rest = used[:STORED], used[STORED:]
    of_series = set(related["strangers_of_stored_series"])
    in_stored_series = [name for name in rest if name in of_series]
    strangers = [name for name in rest if name not in of_series]
    return Split(
        background=background,
        stored=stored,
        originals=stored[:ORIGINALS],
        strangers=strangers[CALIBRATION:],
        series_strangers=in_stored_series,
        calibration=strangers[:CALIBRATION],
    )
