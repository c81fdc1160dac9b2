"""Freed memory is reused without page faults, and threads share few heaps."""

from __future__ import annotations

import os
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


HEAPS = """
import sys, threading
import numpy as np
from imagesearch_services.embedding.memory import keep_freed_memory

if "keep" in sys.argv:
    keep_freed_memory()
SIZE = 64 << 20  # of a heap, in bytes; heaps begin at a multiple of it
blocks, threads = [], []
together = threading.Barrier(16)

def allocate():
    together.wait()
    blocks.append(np.ones(50_000, np.uint8))
    together.wait()

for _ in range(16):
    threads.append(threading.Thread(target=allocate))
    threads[-1].start()
for thread in threads:
    thread.join()
addresses = {block.__array_interface__["data"][0] // SIZE for block in blocks}
print(len(addresses))
"""


def heaps(*arguments: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", HEAPS, *arguments], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_threads_share_few_heaps() -> None:
    assert heaps("keep") <= len(os.sched_getaffinity(0)) + 1 < heaps()
