"""Product libraries: the subject of each picture is stored, and found again in other pictures."""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from PIL import Image, ImageOps

from imagesearch.cli.files import Picture, find_pictures
from imagesearch.cli.output import box_text, category_text, print_table
from imagesearch.client import Client, LibraryType, SearchImagesResponse
from imagesearch.demo import pictures
from imagesearch.demo.edits import encode, harsh, rotate_slightly
from imagesearch.demo.whole_image import add, spread

SAMPLE = 20
"""Pictures that are searched with, at most, spread evenly over the user's folder."""

ANOTHER_PHOTO: dict[str, Callable[[Image.Image], Image.Image]] = {
    "mirrored, other light": lambda picture: harsh(ImageOps.mirror(picture)),
    "turned by 12°": rotate_slightly,
    "on a wide ground": lambda picture: ImageOps.expand(picture, picture.width // 3, "#d9d4cc"),
}
"""What a second photo of the same goods would change."""


@dataclass(frozen=True)
class Outcome:
    """A search and what it found."""

    photo: str
    picture: str
    answer: SearchImagesResponse
    duration_ms: float
    is_own: bool
    """Of the demo's pictures, no two show the same thing; of a user's they may."""

    @property
    def first(self) -> str:
        return self.answer.matches[0].image.image_id if self.answer.matches else ""

    @property
    def right(self) -> bool:
        if self.is_own:
            return self.first == self.picture
        return self.picture in {match.image.image_id for match in self.answer.matches}


def run(client: Client, folder: Path | None) -> bool:
    """Add, search, print; tell whether the searches found what they should."""
    found = find_pictures([folder]) if folder else pictures.goods()
    library = client.create_library(
        library_id=f"demo-{uuid.uuid4().hex[:12]}",
        library_type=LibraryType.LIBRARY_TYPE_PRODUCT,
        display_name="Demo: products",
    )
    try:
        stored = add(client, library.name, found)
        if not stored:
            raise click.ClickException(f"no picture in {folder} could be added")
        print_stored(client, library.name)
        click.echo("Searching with other photos of the same things ...")
        queries = list(other_photos(stored, is_own=folder is None))
        outcomes = [ask(client, library.name, *query, is_own=folder is None) for query in queries]
        filters_hold = search_by_color(client, library.name, queries[0][2])
    finally:
        client.delete_library(name=library.name)
    print_outcomes(outcomes)
    right_count = sum(outcome.right for outcome in outcomes)
    median_ms = statistics.median(outcome.duration_ms for outcome in outcomes)
    click.echo(
        f"{right_count} of {len(outcomes)} photos found their product"
        f" {'first' if folder is None else 'among the first three'};"
        f" median {median_ms:.0f} ms."
    )
    passed = filters_hold and right_count == len(outcomes)
    click.echo(f"Verdict: {'as it should be' if passed else 'NOT as it should be'}.")
    return passed


def print_stored(client: Client, parent: str) -> None:
    """Print what was taken for the subject of each picture."""
    print_table(
        ("picture", "subject", "box", "colours", "attributes"),
        [
            (
                image.image_id,
                category_text(image.category),
                box_text(image.region),
                ", ".join(f"{color.name} {color.share:.0%}" for color in image.subject.colors),
                ", ".join(f"{one.name}={one.value}" for one in image.subject.attributes),
            )
            for image in client.images(parent=parent)
        ],
    )


def other_photos(stored: Sequence[Picture], *, is_own: bool) -> Iterator[tuple[str, str, bytes]]:
    """Give photos to search with: how each was made, of which picture, and the file."""
    for number, picture in enumerate(spread(stored, SAMPLE)):
        original = pictures.open_picture(picture.path)
        name = list(ANOTHER_PHOTO)[number % len(ANOTHER_PHOTO)]
        yield name, picture.image_id, encode(ANOTHER_PHOTO[name](original))
    if is_own:
        other = (pictures.data_folder() / pictures.STEREO_OTHER).read_bytes()
        yield "from a step aside", pictures.STEREO_STORED, other


def ask(
    client: Client, parent: str, photo: str, picture: str, query: bytes, *, is_own: bool
) -> Outcome:
    started_s = time.perf_counter()
    answer = client.search_images(parent=parent, image=query, page_size=3)
    return Outcome(photo, picture, answer, (time.perf_counter() - started_s) * 1e3, is_own)


def search_by_color(client: Client, parent: str, query: bytes) -> bool:
    """Narrow a search to the goods of one colour; tell whether all matches have it."""
    answer = client.search_images(parent=parent, image=query)
    colors = [color for subject in answer.subjects for color in subject.colors]
    if not colors:
        return True
    asked = f'attributes.color = "{colors[0].name}"'
    matches = client.search_images(parent=parent, image=query, filter=asked).matches
    click.echo(f"{asked}: {', '.join(match.image.image_id for match in matches) or 'nothing'}")
    return all(
        colors[0].name in {color.name for color in match.image.subject.colors} for match in matches
    )


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print a row for each search."""
    print_table(
        ("photo", "of", "searched with", "found", "score", "ms", ""),
        [
            (
                outcome.photo,
                outcome.picture,
                box_text(outcome.answer.searched_region),
                outcome.first or "nothing",
                f"{outcome.answer.matches[0].score:.3f}" if outcome.answer.matches else "",
                f"{outcome.duration_ms:.0f}",
                "right" if outcome.right else "WRONG",
            )
            for outcome in outcomes
        ],
    )
