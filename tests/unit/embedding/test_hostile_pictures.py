"""Changed pictures of every format end in pixels or in a refusal, as in `tests.fuzz.pictures`."""

from __future__ import annotations

import os
import signal

import pytest

from imagesearch_services.embedding.pictures.picture_file import PictureFile
from tests.fuzz.pictures import worker
from tests.fuzz.pictures.containers import CONTAINERS
from tests.fuzz.pictures.mutators import Corpus
from tests.fuzz.pictures.seeds import seeds
from tests.fuzz.pictures.target import Target
from tests.fuzz.pictures.worker import input_at, run_part

INPUTS = 3_000


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return seeds()


def test_every_seed_is_a_picture_before_and_after_it_was_taken_apart(corpus: Corpus) -> None:
    for name, files in corpus.items():
        container = CONTAINERS[name]
        for content in files:
            PictureFile(content).decode()
            PictureFile(container.build(container.parse(content))).decode()


def test_no_changed_picture_breaks_the_decoding(corpus: Corpus) -> None:
    part = run_part(corpus, 0, 0, INPUTS)
    assert part.findings == []
    assert part.outcomes.total() == INPUTS
    for name in corpus:
        assert part.outcomes[f"{name} pixels"] > INPUTS // 100


def test_a_crash_is_found_and_the_rest_is_tried(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(_: Target, content: bytes, __: object) -> str:
        if content == input_at(corpus, 0, 7)[1]:
            os.kill(os.getpid(), signal.SIGKILL)
        return "pixels"

    monkeypatch.setattr(Target, "try_picture", crash)
    part = run_part(corpus, 0, 0, 20)
    assert part.findings == [{"index": 7, "format": "", "signature": "crash by signal 9"}]
    assert part.next_index == 8


def test_a_hang_is_found(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(_: Target, __: bytes, ___: object) -> str:
        while True:
            pass

    monkeypatch.setattr(Target, "try_picture", hang)
    monkeypatch.setattr(worker, "MAX_WALL_S", 0.2)
    part = run_part(corpus, 0, 3, 20)
    assert [finding["signature"] for finding in part.findings] == ["hang"]
    assert part.next_index == 4


def test_an_exception_is_found(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Target, __: bytes, ___: object) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(Target, "try_picture", fail)
    part = run_part(corpus, 0, 0, 2)
    assert [finding["signature"] for finding in part.findings] == [
        "ZeroDivisionError test_hostile_pictures.py:fail"
    ] * 2
