"""A likely edit between two pictures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edit:
    """An edit that may have made the second picture from the first."""

    name: str
    amount: float | None = None
    """Degrees clockwise for a rotation; share of the area for a crop, frame or cover; a factor for
    other edits; None if the edit has no amount."""
