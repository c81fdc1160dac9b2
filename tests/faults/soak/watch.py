"""Samples the processes of the suite, and judges whether what they hold grows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from imagesearch_services.runner.shared_memory import PREFIX, SHARED_MEMORY
from imagesearch_services.runner.suite import Suite
from tests.faults.process_samples import folder_mib, sample
from tests.faults.soak.flatness import trend

INTERVAL_S = 5.0
WARM_UP_S = 150.0
"""Age of a process from which it is judged: caches, pools and the heap have their size by then."""
MIN_JUDGED_S = 240.0
"""Minimum time for which a process is watched after that."""
WINDOW_S = 60.0
"""Length of the windows whose lowest values are judged: the pictures in progress come and go, a
leak stays."""
TOLERANCES: Mapping[str, tuple[float, float]] = {
    "anonymous_mib": (10.0, 0.1),
    "open_files": (2.0, 0.0),
    "memory_maps": (16.0, 0.05),
    "threads": (2.0, 0.0),
}
"""Tolerated growth while a process is watched: absolute, and as a share of the level."""


@dataclass
class Watch:
    """Samples of all processes, by name and process id."""

    suite: Suite
    write: Callable[[dict[str, Any]], None]
    _points: dict[tuple[str, int], dict[str, list[tuple[float, float]]]] = field(
        default_factory=dict
    )
    _data_mib: list[tuple[float, float]] = field(default_factory=list)

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            await asyncio.to_thread(self.sample)
            await asyncio.sleep(INTERVAL_S)

    def sample(self) -> None:
        now_s = time.time()
        held = sample(self.suite)
        for name, values in held.items():
            of_process = self._points.setdefault((name, values.pid), {})
            for quantity in TOLERANCES:
                of_process.setdefault(quantity, []).append((now_s, getattr(values, quantity)))
        data_mib = folder_mib(self.suite.settings.data_dir / "catalog")
        self._data_mib.append((now_s, data_mib))
        regions = sum(1 for _ in SHARED_MEMORY.glob(f"{PREFIX}{self.suite.ports.triton_grpc}_*"))
        self.write(
            {
                "kind": "sample",
                "held": {name: values.as_json() for name, values in held.items()},
                "data_mib": round(data_mib, 1),
                "triton_regions": regions,
            }
        )

    def judgements(self) -> list[dict[str, Any]]:
        """Return the trends of every process that lived long enough, and of the data folder."""
        judged = []
        for (name, pid), quantities in self._points.items():
            for quantity, points in quantities.items():
                settled = [point for point in points if point[0] >= points[0][0] + WARM_UP_S]
                if len(settled) < 3 or settled[-1][0] - settled[0][0] < MIN_JUDGED_S:
                    continue
                judged.append(_judged(name, pid, quantity, settled, TOLERANCES[quantity]))
        settled = self._data_mib[len(self._data_mib) // 3 :]
        if len(settled) >= 3 and settled[-1][0] - settled[0][0] >= MIN_JUDGED_S:
            judged.append(_judged("data folder", 0, "mib", settled, (20.0, 0.1)))
        return judged


def _judged(
    name: str,
    pid: int,
    quantity: str,
    points: list[tuple[float, float]],
    tolerance: tuple[float, float],
) -> dict[str, Any]:
    found = trend(_lowest(points))
    absolute, relative = tolerance
    return {
        "kind": "trend",
        "process": name,
        "pid": pid,
        "quantity": quantity,
        "minutes": round((points[-1][0] - points[0][0]) / 60, 1),
        "first": round(points[0][1], 1),
        "last": round(points[-1][1], 1),
        "level": round(found.level, 1),
        "growth": round(found.growth, 2),
        "per_hour": round(found.per_hour, 2),
        "z": round(found.z, 1),
        "flat": found.is_flat(absolute=absolute, relative=relative),
    }


def _lowest(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the lowest point of each window."""
    windows: dict[int, tuple[float, float]] = {}
    for point in points:
        window = int(point[0] // WINDOW_S)
        if window not in windows or point[1] < windows[window][1]:
            windows[window] = point
    return list(windows.values())
