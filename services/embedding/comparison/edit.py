"""An edit, as it is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edit:
    """An edit that may have made one picture from the other."""

    name: str
    amount: float | None = None
    """Degrees clockwise for a rotation, the share of the area for crops and covers, else a
    factor."""
