"""`imagesearch library`: make, show, change and delete libraries."""
# ruff: noqa: PLC0415  # the client waits for the command that needs it

from __future__ import annotations

import sys
from typing import Any

import click

from imagesearch.cli import output, values
from imagesearch.cli.connection import connected, connection_options


@click.group()
def library() -> None:
    """Make, show, change and delete libraries."""


def _as_json(command: Any) -> Any:
    return click.option("--json", "as_json", is_flag=True, help="Print the response message.")(
        command
    )


@library.command()
@click.argument("name")
@click.option(
    "--type",
    "type_",
    required=True,
    type=click.Choice(values.LIBRARY_TYPES, case_sensitive=False),
    help="Which question its searches answer.",
)
@click.option("--display-name", default="", metavar="TEXT")
@click.option("--description", default="", metavar="TEXT")
@click.option(
    "--capacity",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Most images that it may hold.  [default: no limit]",
)
@click.option(
    "--thumbnails/--no-thumbnails", default=True, help="Keep a small picture of each image."
)
@_as_json
@connection_options()
def create(
    *,
    name: str,
    type_: str,
    display_name: str,
    description: str,
    capacity: int,
    thumbnails: bool,
    as_json: bool,
) -> None:
    """Make an empty library."""
    with connected() as client:
        made = client.create_library(
            library_id=values.library_id(name),
            library_type=values.library_type(type_),
            display_name=display_name,
            description=description,
            capacity=capacity,
            thumbnails_disabled=not thumbnails,
        )
    output.print_json(made) if as_json else output.print_libraries([made])


@library.command("list")
@_as_json
@connection_options()
def list_(as_json: bool) -> None:
    """Show all libraries."""
    from imagesearch.client import ListLibrariesResponse

    with connected() as client:
        everything = ListLibrariesResponse(libraries=client.libraries())
    if as_json:
        output.print_json(everything)
    elif everything.libraries:
        output.print_libraries(everything.libraries)
    else:
        click.echo("No library yet: `imagesearch library create NAME --type whole-image`.")


@library.command()
@click.argument("name")
@_as_json
@connection_options()
def get(name: str, as_json: bool) -> None:
    """Show one library."""
    with connected() as client:
        found = client.get_library(name=f"libraries/{values.library_id(name)}")
    output.print_json(found) if as_json else output.print_libraries([found])


@library.command()
@click.argument("name")
@click.option("--display-name", metavar="TEXT")
@click.option("--description", metavar="TEXT")
@click.option("--capacity", type=click.IntRange(min=0), metavar="N", help="0: no limit.")
@click.option(
    "--thumbnails/--no-thumbnails",
    default=None,
    help="Keep a small picture of each image added from now on.",
)
@_as_json
@connection_options()
def update(
    *,
    name: str,
    display_name: str | None,
    description: str | None,
    capacity: int | None,
    thumbnails: bool | None,
    as_json: bool,
) -> None:
    """Change what is given, leave the rest."""
    with connected() as client:
        changed = client.update_library(
            name=f"libraries/{values.library_id(name)}",
            display_name=display_name,
            description=description,
            capacity=capacity,
            thumbnails_disabled=None if thumbnails is None else not thumbnails,
        )
    output.print_json(changed) if as_json else output.print_libraries([changed])


@library.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask, at a terminal.")
@connection_options()
def delete(name: str, yes: bool) -> None:
    """Delete a library and all its images, for good."""
    full_name = f"libraries/{values.library_id(name)}"
    with connected() as client:
        if sys.stdin.isatty() and not yes:
            count = client.get_library(name=full_name).image_count
            click.confirm(f"Delete {full_name} with its {count:,} images for good?", abort=True)
        client.delete_library(name=full_name)
    click.echo(f"Deleted {full_name}.")
