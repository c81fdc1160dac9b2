"""Element libraries: prints and objects are stored, and found where they appear in photos."""

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
"""Elements that are looked for, at most, spread evenly over the user's folder."""

SCENE_PX = (1200, 900)
PLACES = ((330, 300, 20), (860, 560, -35))
"""Middle of each pasted element, and by how much it is turned, degrees."""
SIDE_PX = 360
"""Long side of a pasted element."""

USUALLY_FOUND = 0.7
"""Share of a user's elements that must be found: some pictures have hardly any texture."""


@dataclass(frozen=True)
class Outcome:
    """A photo, what was pasted into it, and what was found."""

    pasted: Sequence[str]
    answer: SearchImagesResponse
    duration_ms: float

    @property
    def found(self) -> list[str]:
        return [match.image.image_id for match in self.answer.matches]

    @property
    def right_count(self) -> int:
        return len(set(self.pasted) & set(self.found))

    @property
    def is_exact(self) -> bool:
        return sorted(self.found) == sorted(self.pasted)


def run(client: Client, folder: Path | None) -> bool:
    """Add, search, print; tell whether the searches found what they should."""
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
        click.echo("Searching photos that show two of them, turned and small, or none ...")
        outcomes = [ask(client, library.name, *scene) for scene in scenes(stored)]
    finally:
        client.delete_library(name=library.name)
    print_outcomes(outcomes)
    return print_verdict(outcomes, is_own=folder is None)


def scenes(stored: Sequence[Picture]) -> Iterator[tuple[list[str], bytes]]:
    """Give photos: the ids of what was pasted into each, and the file."""
    grounds = [pictures.open_picture(picture.path) for picture in pictures.strangers()]
    sample = spread(stored, SAMPLE)
    for number, first in enumerate(sample):
        shown = list(dict.fromkeys([first, sample[(number + 1) % len(sample)]]))
        scene = grounds[number % len(grounds)].resize(SCENE_PX)
        for picture, (x, y, degrees) in zip(shown, PLACES, strict=False):
            element = pictures.open_picture(picture.path)
            element.thumbnail((SIDE_PX, SIDE_PX))
            turned = element.convert("RGBA").rotate(degrees, Image.Resampling.BICUBIC, expand=True)
            scene.paste(turned, (x - turned.width // 2, y - turned.height // 2), turned)
        yield [picture.image_id for picture in shown], encode(scene)
    for ground in grounds:
        yield [], encode(ground)


def ask(client: Client, parent: str, pasted: list[str], query: bytes) -> Outcome:
    started_s = time.perf_counter()
    answer = client.search_images(parent=parent, image=query, page_size=5)
    return Outcome(pasted, answer, (time.perf_counter() - started_s) * 1e3)


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print a row for each match, and for each photo without any."""
    rows = []
    for outcome in outcomes:
        shows = " and ".join(outcome.pasted) or "nothing stored"
        for match in outcome.answer.matches:
            corners = " ".join(f"{one.x:.0f},{one.y:.0f}" for one in match.query_corners.corners)
            is_right = match.image.image_id in outcome.pasted
            mark = "right" if is_right else "WRONG"
            rows.append((shows, match.image.image_id, f"{match.score:.3f}", corners, mark))
        missed = [name for name in outcome.pasted if name not in outcome.found]
        if missed or not outcome.answer.matches:
            rows.append((shows, "nothing", "", "", "missed" if missed else "right"))
    print_table(("photo shows", "found", "score", "corners in the photo", ""), rows)


def print_verdict(outcomes: Sequence[Outcome], *, is_own: bool) -> bool:
    """Print how many were right; tell whether that is as it should be."""
    shown = [outcome for outcome in outcomes if outcome.pasted]
    empty = [outcome for outcome in outcomes if not outcome.pasted]
    pasted_count = sum(len(outcome.pasted) for outcome in shown)
    right_count = sum(outcome.right_count for outcome in shown)
    silent_count = sum(not outcome.found for outcome in empty)
    median_ms = statistics.median(outcome.duration_ms for outcome in outcomes)
    click.echo(
        f"{right_count} of {pasted_count} elements found, {silent_count} of {len(empty)} photos"
        f" without any gave nothing; median {median_ms:.0f} ms."
    )
    passed = silent_count == len(empty) and right_count >= USUALLY_FOUND * pasted_count
    if is_own:
        passed = passed and all(outcome.is_exact for outcome in shown)
    click.echo(f"Verdict: {'as it should be' if passed else 'NOT as it should be'}.")
    return passed
