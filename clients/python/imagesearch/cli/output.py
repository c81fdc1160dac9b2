"""Output as JSON for programs and as tables for people."""
# ruff: noqa: PLC0415  # imported by the commands that use it

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.rpc.status_pb2 import Status
    from rich.console import Console

    from imagesearch.client import (
        Box,
        Category,
        Image,
        Library,
        Match,
        SearchImagesResponse,
        Subject,
    )


def to_dict(message: Message) -> dict[str, Any]:
    """Return a message as protobuf JSON, including fields with default values."""
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message, always_print_fields_with_no_presence=True)


def print_json(value: Message | dict[str, Any]) -> None:
    """Print one line of JSON."""
    plain = value if isinstance(value, dict) else to_dict(value)
    click.echo(json.dumps(plain, ensure_ascii=False))


def os_message(error: OSError) -> str:
    """Return the error message of the operating system, without the file name."""
    return error.strerror or str(error)


def local_error(message: str, reason: str) -> Status:
    """Return an error of the command line itself, in the format of a service error."""
    from google.protobuf.any_pb2 import Any as AnyMessage
    from google.rpc.error_details_pb2 import ErrorInfo
    from google.rpc.status_pb2 import Status

    detail = AnyMessage()
    detail.Pack(ErrorInfo(reason=reason, domain="imagesearch.cli"))
    return Status(code=3, message=message, details=[detail])  # 3 is INVALID_ARGUMENT


@functools.cache
def stdout() -> Console:
    """Return a console that does not wrap lines when the output is a pipe."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 10_000
    return Console(markup=False, highlight=False, emoji=False, width=width)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table without the columns that are empty in all rows."""
    from rich import box
    from rich.table import Table

    rows = list(rows)
    kept = [index for index in range(len(columns)) if any(row[index] for row in rows)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for index in kept:
        table.add_column(columns[index], overflow="fold")
    for row in rows:
        table.add_row(*(row[index] for index in kept))
    stdout().print(table)


def print_matches(matches: Iterable[Match]) -> None:
    from imagesearch.client import Relation

    print_table(
        ("score", "image", "relation", "in the query", "box", "entity", "category", "tags"),
        [
            (
                f"{match.score:.3f}",
                match.image.image_id,
                enum_word(Relation.Name(match.relation)),
                box_text(match.query_box) if match.HasField("query_box") else "",
                part_text(match),
                match.image.entity_id,
                category_text(match.image.category),
                tags_text(match.image),
            )
            for match in matches
        ],
    )


def print_images(images: Iterable[Image]) -> None:
    print_table(
        ("image", "size", "type", "entity", "category", "tags", "added"),
        [
            (
                image.image_id,
                f"{image.info.width}x{image.info.height}",
                image.info.media_type,
                image.entity_id,
                category_text(image.category),
                tags_text(image),
                image.create_time.ToJsonString(),
            )
            for image in images
        ],
    )


def print_libraries(libraries: Iterable[Library]) -> None:
    from imagesearch.client import LibraryType

    print_table(
        ("library", "type", "images", "capacity", "display name", "models", "created"),
        [
            (
                library.name.removeprefix("libraries/"),
                # The number of a type that only a later version knows.
                enum_word(LibraryType.Name(library.type), prefix="LIBRARY_TYPE_")
                if library.type in LibraryType.values()
                else str(library.type),
                "damaged" if library.damaged else f"{library.image_count:,}",
                f"{library.capacity:,}" if library.capacity else "",
                library.display_name,
                ", ".join(f"{model.name}@{model.version}" for model in library.models),
                library.create_time.ToJsonString(),
            )
            for library in libraries
        ],
    )


def print_subjects(subjects: Iterable[Subject]) -> None:
    print_table(
        ("score", "category", "box", "colors", "attributes"),
        [
            (
                f"{subject.score:.3f}",
                category_text(subject.category),
                box_text(subject.box),
                ", ".join(f"{color.name} {color.share:.0%}" for color in subject.colors),
                ", ".join(f"{item.name}={item.value}" for item in subject.attributes),
            )
            for subject in subjects
        ],
    )


def chosen_text(answer: SearchImagesResponse) -> str:
    """Return a line about the subject that was used for the search."""
    subject = answer.subjects[answer.chosen_subject]
    words = [category_text(subject.category) or "object", "at", box_text(subject.box)]
    if subject.colors:
        words.append(", ".join(f"{color.name} {color.share:.0%}" for color in subject.colors))
    number = f"{answer.chosen_subject + 1} of {len(answer.subjects)}"
    return f"Subject {number}: {' '.join(words)}"


def count_text(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> count_text(1, "picture"), count_text(1200, "picture")
    ('1 picture', '1,200 pictures')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def box_text(box: Box) -> str:
    """Return a box in the format of --region."""
    return ",".join(f"{side:.0f}" for side in (box.x_min, box.y_min, box.x_max, box.y_max))


def part_text(match: Match) -> str:
    """Return the box of the stored image that matched; empty for the whole image."""
    box, info = match.box, match.image.info
    whole = (box.x_min, box.y_min, box.x_max, box.y_max) == (0, 0, info.width, info.height)
    return "" if whole or not match.HasField("box") else box_text(box)


def tags_text(image: Image) -> str:
    """Return tags in the format of --tag, with control characters escaped."""
    from imagesearch.client import plain_tags

    words = []
    for name, value in sorted(plain_tags(image.tags).items()):
        text = value if isinstance(value, str) and value.isprintable() else json.dumps(value)
        words.append(f"{name}={text}")
    return " ".join(words)


def category_text(category: Category.ValueType) -> str:
    from imagesearch.client import Category

    return "" if category == 0 else enum_word(Category.Name(category), prefix="CATEGORY_")


def enum_word(name: str, *, prefix: str = "RELATION_") -> str:
    """Return the name of an enum value as it is written in options.

    >>> enum_word("RELATION_SAME")
    'same'
    """
    return name.removeprefix(prefix).lower().replace("_", "-").replace("unspecified", "")
