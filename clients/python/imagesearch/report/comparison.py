"""The page of a comparison: the verdict on two pictures, their measures and an overlay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from imagesearch.client import CompareImagesResponse
from imagesearch.report.figures import Figure, data_uri, figure
from imagesearch.report.rendering import render
from imagesearch.report.searches import step_views


@dataclass(frozen=True)
class ComparedPicture:
    """A picture of a comparison."""

    name: str
    """Name of the file."""
    content: bytes
    """Content of the file."""


def comparison_page(
    a: ComparedPicture,
    b: ComparedPicture,
    answer: CompareImagesResponse,
    *,
    verdict: Sequence[str],
    facts: Sequence[tuple[str, str, str]],
    measures: Sequence[tuple[str, str, str]],
) -> str:
    """Return the page of a comparison.

    Args:
        a: the first picture.
        b: the second picture, the result of the likely edits.
        answer: the response; the page shows its overlay if it has one.
        verdict: sentences of the verdict.
        facts: rows of the facts about the files: name, value of A, value of B.
        measures: rows of the measures: name, value, range.
    """
    total_ms, steps = step_views(answer.timings)
    return render(
        "comparison.html",
        a=a.name,
        b=b.name,
        verdict=verdict,
        figures=[
            ("A", a.name, _figure(a, answer.info_a.width, answer.info_a.height)),
            ("B", b.name, _figure(b, answer.info_b.width, answer.info_b.height)),
        ],
        overlay=data_uri(answer.overlay, "image/png") if answer.overlay else "",
        facts=facts,
        measures=measures,
        total_ms=total_ms,
        steps=steps,
    )


def _figure(picture: ComparedPicture, width: int, height: int) -> Figure:
    return figure(picture.content, width, height, alt=f"The picture {picture.name}")
