"""Demo of product libraries: the stored subject of a picture is found in other photos of it."""

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
from imagesearch.demo.edits import encode, increase_contrast, rotate_slightly
from imagesearch.demo.whole_image import add, spread

SAMPLE = 20
"""Maximum pictures to search for, sampled evenly from the user's folder."""

PHOTO_CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "mirrored, more contrast": lambda picture: increase_contrast(ImageOps.mirror(picture)),
    "rotated by 12°": rotate_slightly,
    "wide margin": lambda picture: ImageOps.expand(picture, picture.width // 3, "#d9d4cc"),
}
"""Changes that simulate another photo of the same product."""


@dataclass(frozen=True)
class Outcome:
    """A search and its answer."""

    photo: str
    picture: str
    answer: SearchImagesResponse
    duration_ms: float
    is_default: bool
    """Whether the pictures are the default ones, which all show different objects."""

    @property
    def first(self) -> str:
        return self.answer.matches[0].image.image_id if self.answer.matches else ""

    @property
    def is_correct(self) -> bool:
        if self.is_default:
            return self.first == self.picture
        return self.picture in {match.image.image_id for match in self.answer.matches}


def run(client: Client, folder: Path | None) -> bool:
    """Add, search and print. Returns whether the results are as expected."""
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
        click.echo("Searching with other photos of the same objects ...")
        is_default = folder is None
        queries = list(other_photos(stored, is_default=is_default))
        outcomes = [
            search(client, library.name, *query, is_default=is_default) for query in queries
        ]
        filters_hold = search_by_color(client, library.name, queries[0][2])
    finally:
        client.delete_library(name=library.name)
    print_outcomes(outcomes)
    correct_count = sum(outcome.is_correct for outcome in outcomes)
    median_ms = statistics.median(outcome.duration_ms for outcome in outcomes)
    click.echo(
        f"{correct_count} of {len(outcomes)} photos found their product"
        f" {'first' if folder is None else 'among the first three'};"
        f" median {median_ms:.0f} ms."
    )
    passed = filters_hold and correct_count == len(outcomes)
    click.echo(f"Result: {'as expected' if passed else 'NOT as expected'}.")
    return passed


def print_stored(client: Client, parent: str) -> None:
    """Print the stored subject of each picture."""
    print_table(
        ("picture", "subject", "box", "colors", "attributes"),
        [
            (
                image.image_id,
                category_text(image.category),
                box_text(image.region),
                ", ".join(f"{color.name} {color.share:.0%}" for color in image.subject.colors),
                ", ".join(
                    f"{attribute.name}={attribute.value}" for attribute in image.subject.attributes
                ),
            )
            for image in client.images(parent=parent)
        ],
    )


def other_photos(
    stored: Sequence[Picture], *, is_default: bool
) -> Iterator[tuple[str, str, bytes]]:
    """Yield query photos, each as the name of the change, the image id and the file."""
    for number, picture in enumerate(spread(stored, SAMPLE)):
        original = pictures.open_picture(picture.path)
        name = list(PHOTO_CHANGES)[number % len(PHOTO_CHANGES)]
        yield name, picture.image_id, encode(PHOTO_CHANGES[name](original))
    if is_default:
        other = (pictures.data_folder() / pictures.STEREO_OTHER).read_bytes()
        yield "a step to the side", pictures.STEREO_STORED, other


def search(
    client: Client, parent: str, photo: str, picture: str, query: bytes, *, is_default: bool
) -> Outcome:
    started_s = time.perf_counter()
    answer = client.search_images(parent=parent, image=query, page_size=3)
    return Outcome(photo, picture, answer, (time.perf_counter() - started_s) * 1e3, is_default)


def search_by_color(client: Client, parent: str, query: bytes) -> bool:
    """Filter a search by the color of the query. Returns whether all matches have that color."""
    answer = client.search_images(parent=parent, image=query)
    colors = [color for subject in answer.subjects for color in subject.colors]
    if not colors:
        return True
    color_filter = f'attributes.color = "{colors[0].name}"'
    matches = client.search_images(parent=parent, image=query, filter=color_filter).matches
    click.echo(
        f"{color_filter}: {', '.join(match.image.image_id for match in matches) or 'nothing'}"
    )
    return all(
        colors[0].name in {color.name for color in match.image.subject.colors} for match in matches
    )


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print a row for each search."""
    print_table(
        ("photo", "picture", "searched box", "found", "score", "ms", ""),
        [
            (
                outcome.photo,
                outcome.picture,
                box_text(outcome.answer.searched_region),
                outcome.first or "nothing",
                f"{outcome.answer.matches[0].score:.3f}" if outcome.answer.matches else "",
                f"{outcome.duration_ms:.0f}",
                "correct" if outcome.is_correct else "WRONG",
            )
            for outcome in outcomes
        ],
    )
