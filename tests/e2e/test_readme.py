"""The commands and programs of the README work as written."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from imagesearch_services.runner.suite import Suite
from tests.pictures import encoded, photo

ROOT = Path(__file__).parents[2]
TARGET = "127.0.0.1:50051"
"""Address of the suite in the README."""


def blocks(section: str, language: str) -> list[str]:
    """Return the code blocks of one language under a heading of the README."""
    text = (ROOT / "README.md").read_text()
    _, _, rest = text.partition(f"\n## {section}\n")
    assert rest, f"no section {section!r}"
    body = re.split(r"\n## ", rest)[0]
    return re.findall(rf"```{language}\n(.*?)```", body, flags=re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the pictures that the README names."""
    pictures = tmp_path / "photos"
    pictures.mkdir()
    for seed, name in enumerate(("cat.jpg", "harbour.jpg", "market.jpg")):
        (pictures / name).write_bytes(encoded(photo(seed)))
    (tmp_path / "found-on-the-web.jpg").write_bytes(encoded(photo(0).crop((30, 20, 300, 230))))
    return tmp_path


def run(script: str, suite: Suite, folder: Path) -> str:
    """Run a code block unchanged except for the address of the suite."""
    environment = {
        **os.environ,
        "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
        "IMAGESEARCH_TARGET": suite.target,
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace(TARGET, suite.target)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_grpcurl_calls_work_as_written(suite: Suite, folder: Path) -> None:
    output = "".join(run(block, suite, folder) for block in blocks("grpcurl", "sh"))
    assert "imagesearch.gateway.v1.ImageSearchService" in output
    assert re.search(r'"(imageId|image_id)": "cat.jpg"', output)
    assert '"relation": "RELATION_SAME"' in output
    assert '"status": "SERVING"' in output


def test_the_command_line_works_as_written(suite: Suite, folder: Path) -> None:
    output = "".join(run(block, suite, folder) for block in blocks("Command line", "sh"))
    assert "cat.jpg" in output


def test_the_python_client_works_as_written(suite: Suite, folder: Path) -> None:
    for block in blocks("Python", "python"):
        program = folder / "program.py"
        program.write_text(block.replace(TARGET, suite.target))
        output = run(f"python {program}", suite, folder)
        assert "cat.jpg" in output
