"""Demo of element libraries: stored prints and objects are found in photos that show them."""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from PIL import Image

from imagesearch.cli.files import Picture, find_pictures
from imagesearch.cli.output import print_table
from imagesearch.client import Client, LibraryType, SearchImagesResponse
from imagesearch.demo import pictures
from imagesearch.demo.edits import encode
from imagesearch.demo.whole_image import add, spread

SAMPLE = 10
"""Maximum elements to search for, sampled evenly from the user's folder."""

SCENE_PX = (1200, 900)
"""Width and height of a photo, in pixels."""
PLACEMENTS = ((330, 300, 20), (860, 560, -35))
"""Center x and y of each pasted element, in pixels, and its rotation in degrees."""
SIDE_PX = 360
"""Long side of a pasted element, in pixels."""

MIN_RECALL = 0.7
"""Minimum recall with the user's pictures, some of which may have hardly any texture."""


@dataclass(frozen=True)
class Outcome:
    """The elements pasted into a photo, and the answer to a search with it."""

    pasted: Sequence[str]
    answer: SearchImagesResponse
    duration_ms: float

    @property
    def found(self) -> list[str]:
        return [match.image.image_id for match in self.answer.matches]

    @property
    def found_count(self) -> int:
        return len(set(self.pasted) & set(self.found))

    @property
    def is_exact(self) -> bool:
        return sorted(self.found) == sorted(self.pasted)


def run(client: Client, folder: Path | None) -> bool:
    """Add, search and print. Returns whether the results are as expected."""
    found = find_pictures([folder]) if folder else pictures.elements()
    library = client.create_library(
        library_id=f"demo-{uuid.uuid4().hex[:12]}",
        library_type=LibraryType.LIBRARY_TYPE_ELEMENT,
        display_name="Demo: elements",
    )
    try:
        stored = add(client, library.name, found)
        if not stored:
            raise click.ClickException(f"no picture in {folder} could be added")
        click.echo(
            "Searching with photos that show two elements, rotated and scaled down, or none ..."
        )
        outcomes = [search(client, library.name, *scene) for scene in scenes(stored)]
    finally:
        client.delete_library(name=library.name)
    print_outcomes(outcomes)
    return print_verdict(outcomes, is_default=folder is None)


def scenes(stored: Sequence[Picture]) -> Iterator[tuple[list[str], bytes]]:
    """Yield photos, each as the ids of the pasted elements and the file."""
    backgrounds = [pictures.open_picture(picture.path) for picture in pictures.unrelated()]
    sample = spread(stored, SAMPLE)
    for number, first in enumerate(sample):
        shown = list(dict.fromkeys([first, sample[(number + 1) % len(sample)]]))
        scene = backgrounds[number % len(backgrounds)].resize(SCENE_PX)
        for picture, (x, y, degrees) in zip(shown, PLACEMENTS, strict=False):
            element = pictures.open_picture(picture.path)
            element.thumbnail((SIDE_PX, SIDE_PX))
            rotated = element.convert("RGBA").rotate(degrees, Image.Resampling.BICUBIC, expand=True)
            scene.paste(rotated, (x - rotated.width // 2, y - rotated.height // 2), rotated)
        yield [picture.image_id for picture in shown], encode(scene)
    for background in backgrounds:
        yield [], encode(background)


def search(client: Client, parent: str, pasted: list[str], query: bytes) -> Outcome:
    started_s = time.perf_counter()
    answer = client.search_images(parent=parent, image=query, page_size=5)
    return Outcome(pasted, answer, (time.perf_counter() - started_s) * 1e3)


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print a row for each match, and for each photo without a match."""
    rows = []
    for outcome in outcomes:
        shows = " and ".join(outcome.pasted) or "nothing stored"
        for match in outcome.answer.matches:
            corners = " ".join(
                f"{corner.x:.0f},{corner.y:.0f}" for corner in match.query_corners.corners
            )
            is_correct = match.image.image_id in outcome.pasted
            mark = "correct" if is_correct else "WRONG"
            rows.append((shows, match.image.image_id, f"{match.score:.3f}", corners, mark))
        missed = [name for name in outcome.pasted if name not in outcome.found]
        if missed or not outcome.answer.matches:
            rows.append((shows, "nothing", "", "", "missed" if missed else "correct"))
    print_table(("photo shows", "found", "score", "corners in the photo", ""), rows)


def print_verdict(outcomes: Sequence[Outcome], *, is_default: bool) -> bool:
    """Print the counts of correct results. Returns whether the results are as expected.

    Args:
        outcomes: outcomes of all searches.
        is_default: whether the elements are the default ones, which must all be found.
    """
    shown = [outcome for outcome in outcomes if outcome.pasted]
    empty = [outcome for outcome in outcomes if not outcome.pasted]
    pasted_count = sum(len(outcome.pasted) for outcome in shown)
    found_count = sum(outcome.found_count for outcome in shown)
    no_match_count = sum(not outcome.found for outcome in empty)
    median_ms = statistics.median(outcome.duration_ms for outcome in outcomes)
    click.echo(
        f"{found_count} of {pasted_count} elements found, {no_match_count} of {len(empty)} photos"
        f" without elements have no match; median {median_ms:.0f} ms."
    )
    passed = no_match_count == len(empty) and found_count >= MIN_RECALL * pasted_count
    if is_default:
        passed = passed and all(outcome.is_exact for outcome in shown)
    click.echo(f"Result: {'as expected' if passed else 'NOT as expected'}.")
    return passed
