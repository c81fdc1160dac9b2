"""Fixtures: a real Triton and the Embedding service that uses it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.embedding.harness import SERVING, Client, running_embedding
from tests.triton_server import TritonProcess, running_triton


@pytest.fixture(scope="session")
def triton() -> Iterator[TritonProcess]:
    """Run a Triton with all models, which tests share and must not change."""
    with running_triton() as triton:
        yield triton


@pytest.fixture
async def client(triton: TritonProcess) -> AsyncIterator[Client]:
    """Run an Embedding service until it serves."""
    async with running_embedding(triton.ports.grpc_address) as client:
        await client.until(SERVING)
        yield client


@pytest.fixture
def repository_with_wrong_answer(models_dir: Path, tmp_path: Path) -> Callable[[str, str], Path]:
    """Return a function that makes a models folder with a wrong known answer for one model."""

    def make(model: str, answer: str) -> Path:
        for entry in models_dir.iterdir():
            if entry.name != "repository":
                (tmp_path / entry.name).symlink_to(entry)
        for source in (models_dir / "repository").iterdir():
            target = tmp_path / "repository" / source.name
            (target / "configs").mkdir(parents=True)
            for version in source.glob("[0-9]*"):
                (target / version.name).symlink_to(version)
            for config in ("config.pbtxt", "configs/python.pbtxt"):
                text = (source / config).read_text()
                if source.name == model:
                    key = '"probe" value { string_value: "'
                    head, _, tail = text.partition(key)
                    assert tail
                    text = head + key + answer + tail[tail.index('"') :]
                (target / config).write_text(text)
        return tmp_path

    return make
