"""A Triton server for all tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.triton_server import TritonProcess, running_triton

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def triton() -> Iterator[TritonProcess]:
    with running_triton() as triton:
        yield triton
