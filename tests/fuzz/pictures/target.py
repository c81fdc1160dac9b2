"""The fuzzed code: what a worker of Embedding's cage does with an untrusted picture."""

from __future__ import annotations

import contextlib
import importlib
import mmap
import os
import random

from PIL import AvifImagePlugin

from imagesearch_services.embedding.cage.confinement import TaskLimits, confine
from imagesearch_services.embedding.cage.protocol import ERRORS, MEMORY_BYTES, Message
from imagesearch_services.embedding.cage.tasks import Budget, read_decoded, read_opened
from imagesearch_services.embedding.cage.worker import _answer
from imagesearch_services.embedding.cage.zygote import IMPORTED_LATE
from imagesearch_services.embedding.pictures.limits import MAX_DECODING_BYTES

LARGE_PIXELS = 100_000
"""Pixels whose shared memory is freed after a task, as in the cage."""


class WrongAnswerError(Exception):
    """A picture was neither decoded nor refused with a reason of pictures."""


class Target:
    """A confined process that opens and decodes pictures, under the limits of the cage."""

    def __init__(self, parent_pid: int) -> None:
        """Confine this process for the rest of its life."""
        for name in IMPORTED_LATE:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff writes a line for each damage
        self._memory = mmap.mmap(-1, MEMORY_BYTES)
        self._budget = Budget()
        self._limits: TaskLimits = confine(parent_pid=parent_pid, max_task_bytes=MAX_DECODING_BYTES)

    def try_picture(self, content: bytes, random_: random.Random) -> str:
        """Open and decode a picture; return "pixels" or the reason of the refusal.

        A picture that takes more processor time than its budget ends the process by SIGPROF.

        Raises:
            Exception: a failure: whatever is not a refusal.
        """
        self._memory[: len(content)] = content
        task = {"task": "open", "size": len(content)}
        limits = self._budget.header_limits(content)
        answer = self._run(task, limits.cpu_s, limits.memory_bytes)
        if "error" in answer:
            return str(answer["error"])
        file = read_opened(answer, content)
        limits = self._budget.decoding_limits(file)
        task |= {"task": "decode", "reduction": random_.choice((1.0, 1.0, 2.0, 8.0))}
        answer = self._run(task, limits.cpu_s, limits.memory_bytes)
        if "error" in answer:
            return str(answer["error"])
        decoded = read_decoded(answer, file)
        if decoded.pixels > LARGE_PIXELS:
            self._memory.madvise(mmap.MADV_REMOVE)
        return "pixels"

    def _run(self, task: Message, cpu_s: float, memory_bytes: int) -> Message:
        self._limits.begin(cpu_s=cpu_s, memory_bytes=memory_bytes)
        answer = _answer({**task, "memory_bytes": memory_bytes}, self._memory)
        self._limits.end()
        if "error" in answer and answer["error"] not in ERRORS:
            raise WrongAnswerError(str(answer["error"]))
        return answer
