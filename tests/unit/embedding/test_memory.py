"""Freed memory is reused without page faults."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource, sys
import numpy as np
from imagesearch_services.embedding.memory import keep_freed_memory

if "keep" in sys.argv:
    keep_freed_memory()
pictures = lambda: [np.ones((800, 1200, 3), np.uint8) for _ in range(4)]
pictures()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    pictures()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_successive_pictures_reuse_the_same_pages() -> None:
    assert faults("keep") < faults() / 5
