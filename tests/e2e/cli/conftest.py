"""Fixtures that run the command line and the demo as programs against a suite."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagesearch_services.runner.suite import Suite

Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def imagesearch(suite: Suite, tmp_path: Path) -> Program:
    """Return a function that runs `imagesearch` in a temporary folder."""

    def run(*arguments: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "imagesearch.cli", *arguments],
            input=stdin or b"",
            capture_output=True,
            check=False,
            cwd=tmp_path,
            env={"IMAGESEARCH_TARGET": suite.target, "PATH": "/usr/bin:/bin"},
            timeout=120,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    return run


@pytest.fixture
def shop(imagesearch: Program) -> Iterator[str]:
    """Yield the id of an empty whole-image library, created and deleted by the command line."""
    name = f"cli-{uuid.uuid4().hex[:12]}"
    created = imagesearch("library", "create", name, "--type", "whole-image")
    assert created.returncode == 0, created.stderr
    yield name
    deleted = imagesearch("library", "delete", name)
    assert deleted.returncode == 0, deleted.stderr
