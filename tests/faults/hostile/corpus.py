"""All hostile pictures by kind."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.hostile import jpeg, others, png, tiff


def kinds(wanted: str = "") -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each kind whose name contains `wanted`."""
    for module in (jpeg, png, tiff, others):
        for name, content in module.kinds():
            if wanted in name:
                yield name, content
