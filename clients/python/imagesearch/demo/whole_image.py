"""Demo of whole-image libraries: edited copies are found, and other pictures match nothing."""

from __future__ import annotations

import itertools
import statistics
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from imagesearch.cli.add import Adder
from imagesearch.cli.files import Found, Picture, find_pictures
from imagesearch.cli.output import box_text, print_table
from imagesearch.client import (
    Category,
    Client,
    ImageSearchError,
    LibraryType,
    Match,
    Relation,
)
from imagesearch.demo import pictures
from imagesearch.demo.edits import EDITS, encode

SAMPLE = 50
"""Maximum pictures to edit, sampled evenly from the user's folder."""
PER_EDIT = 4
"""Number of pictures per edit; the next edit uses the next pictures."""
NOT_STORED = "not stored"
"""Label of searches with pictures that are not stored."""
MIN_SIDE_PX = 100
"""Minimum shorter side of an edited picture, in pixels; smaller pictures are only stored."""


@dataclass(frozen=True)
class Case:
    """A search and its expected result."""

    edit: str
    picture: str
    query: bytes
    relation: Relation.ValueType
    expected: frozenset[str] | None
    """Image ids of which one must be first; empty: no match expected; None: any result is fine."""


@dataclass(frozen=True)
class Outcome:
    """A search and its first match."""

    case: Case
    match: Match | None
    duration_ms: float

    @property
    def is_correct(self) -> bool:
        expected = self.case.expected
        if expected is None:
            return True
        return self.match.image.image_id in expected if self.match else not expected


def run(client: Client, folder: Path | None) -> bool:
    """Add, search and print. Returns whether the results are as expected."""
    found = find_pictures([folder]) if folder else pictures.stored_pictures()
    library = client.create_library(
        library_id=f"demo-{uuid.uuid4().hex[:12]}",
        library_type=LibraryType.LIBRARY_TYPE_WHOLE_IMAGE,
        display_name="Demo: whole images",
    )
    try:
        stored = add(client, library.name, found)
        if not stored:
            raise click.ClickException(f"no picture in {folder} could be added")
        click.echo("Searching with edited copies and with pictures that are not stored ...")
        outcomes = [
            search(client, library.name, case)
            for case in cases(client, library.name, stored, strict=folder is None)
        ]
    finally:
        client.delete_library(name=library.name)
    print_outcomes(outcomes)
    return print_verdict(outcomes)


def add(client: Client, parent: str, found: Found) -> list[Picture]:
    """Add the pictures and return those that were stored."""
    adder = Adder(
        client=client,
        parent=parent,
        tags={"demo": True},
        category=Category.CATEGORY_UNSPECIFIED,
        entity_id="",
        allow_overwrite=False,
    )
    started_s = time.perf_counter()
    refused: set[Path] = set()
    for path, result in adder.add_all(found):
        if result.HasField("error"):
            refused.add(path)
            error = ImageSearchError.from_status(result.error)
            click.echo(f"not added: {path}: {error.message} [{error.reason}]", err=True)
    duration_s = time.perf_counter() - started_s
    stored = [picture for picture in found.pictures if picture.path not in refused]
    rate = len(stored) / duration_s
    click.echo(f"Added {len(stored):,} pictures in {duration_s:.1f} s ({rate:.0f}/s).")
    return stored


def cases(
    client: Client, parent: str, stored: Sequence[Picture], *, strict: bool
) -> Iterator[Case]:
    """Yield the searches lazily.

    Args:
        client: client of the suite.
        parent: name of the library.
        stored: pictures in the library.
        strict: whether all stored pictures are different. If not, each picture is searched for
            first, and all of its stored copies count as correct matches.
    """
    backgrounds = [pictures.open_picture(picture.path) for picture in pictures.unrelated()]
    sample = spread(stored, SAMPLE)
    order = itertools.cycle(sample)
    for number, (edit, draw) in enumerate(EDITS.items()):
        for picture in itertools.islice(order, min(PER_EDIT, len(sample))):
            original = pictures.open_picture(picture.path)
            if min(original.size) < MIN_SIDE_PX:
                continue
            query = encode(draw(original, backgrounds[number % len(backgrounds)]))
            same = frozenset({picture.image_id})
            if not strict:
                same |= stored_copies(client, parent, encode(original))
            yield Case(edit, picture.image_id, query, Relation.RELATION_SAME, same)
    no_match: frozenset[str] = frozenset()
    for picture in pictures.unrelated():
        query = picture.path.read_bytes()
        yield Case(NOT_STORED, picture.image_id, query, Relation.RELATION_SAME, no_match)
    if strict:
        yield from stereo_cases()


def stereo_cases() -> Iterator[Case]:
    """Yield searches with the second picture of a stereo pair.

    It is not an edited copy, but it shares most of its pixels with the stored picture, at slightly
    different positions. So a search for SAME may match or not, and a search for SIMILAR must match.
    """
    query = (pictures.data_folder() / pictures.STEREO_OTHER).read_bytes()
    other, stored = pictures.STEREO_OTHER, frozenset({pictures.STEREO_STORED})
    yield Case("stereo pair", other, query, Relation.RELATION_SAME, None)
    yield Case("stereo pair", other, query, Relation.RELATION_SIMILAR, stored)


def stored_copies(client: Client, parent: str, query: bytes) -> frozenset[str]:
    answer = client.search_images(
        parent=parent, image=query, relation=Relation.RELATION_SAME, page_size=100
    )
    return frozenset(match.image.image_id for match in answer.matches)


def spread(items: Sequence[Picture], count: int) -> list[Picture]:
    """Return at most `count` items, sampled evenly."""
    step = max(1, -(-len(items) // count))
    return list(items[::step])


def search(client: Client, parent: str, case: Case) -> Outcome:
    started_s = time.perf_counter()
    answer = client.search_images(
        parent=parent, image=case.query, relation=case.relation, page_size=3
    )
    duration_ms = (time.perf_counter() - started_s) * 1e3
    return Outcome(case, answer.matches[0] if answer.matches else None, duration_ms)


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print a row for each search."""
    print_table(
        ("edit", "picture", "relation", "found", "score", "in the query", "ms", ""),
        [
            (
                outcome.case.edit,
                outcome.case.picture,
                Relation.Name(outcome.case.relation).removeprefix("RELATION_").lower(),
                outcome.match.image.image_id if outcome.match else "nothing",
                f"{outcome.match.score:.3f}" if outcome.match else "",
                box_text(outcome.match.query_box)
                if outcome.match and outcome.match.HasField("query_box")
                else "",
                f"{outcome.duration_ms:.0f}",
                mark(outcome),
            )
            for outcome in outcomes
        ],
    )


def mark(outcome: Outcome) -> str:
    if outcome.case.expected is None:
        return "either"
    return "correct" if outcome.is_correct else "WRONG"


def print_verdict(outcomes: Sequence[Outcome]) -> bool:
    """Print the number of correct results per kind of search. Returns whether all are correct."""
    judged = [outcome for outcome in outcomes if outcome.case.expected is not None]
    copies = [outcome for outcome in judged if outcome.case.edit in EDITS]
    not_stored = [outcome for outcome in judged if outcome.case.edit == NOT_STORED]
    similar = [outcome for outcome in judged if outcome not in copies and outcome not in not_stored]
    for group, text in (
        (copies, "edited copies found their picture first"),
        (not_stored, "pictures that are not stored found nothing"),
        (similar, "pictures found the most similar picture first"),
    ):
        if group:
            correct_count = sum(outcome.is_correct for outcome in group)
            median_ms = statistics.median(outcome.duration_ms for outcome in group)
            click.echo(f"{correct_count} of {len(group)} {text}; median {median_ms:.0f} ms.")
    passed = bool(copies) and all(outcome.is_correct for outcome in judged)
    click.echo(f"Result: {'as expected' if passed else 'NOT as expected'}.")
    return passed
