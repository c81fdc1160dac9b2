"""`imagesearch library`: create, show, update and delete libraries."""
# ruff: noqa: PLC0415  # imported by the commands that use it

from __future__ import annotations

import sys
from typing import Any

import click

from imagesearch.cli import output, values
from imagesearch.cli.connection import connected, connection_options


@click.group()
def library() -> None:
    """Create, show, update and delete libraries."""


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
    help="Type of the library: edited copies, elements in photos, or products.",
)
@click.option("--display-name", default="", metavar="TEXT", help="Human-readable name.")
@click.option("--description", default="", metavar="TEXT", help="Human-readable description.")
@click.option(
    "--capacity",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Maximum number of images.  [default: no limit]",
)
@click.option("--thumbnails/--no-thumbnails", default=True, help="Store a thumbnail of each image.")
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
    """Create an empty library."""
    with connected() as client:
        created = client.create_library(
            library_id=values.library_id(name),
            library_type=values.library_type(type_),
            display_name=display_name,
            description=description,
            capacity=capacity,
            thumbnails_disabled=not thumbnails,
        )
    output.print_json(created) if as_json else output.print_libraries([created])


@library.command("list")
@_as_json
@connection_options()
def list_(as_json: bool) -> None:
    """List all libraries."""
    from imagesearch.client import ListLibrariesResponse

    with connected() as client:
        libraries = ListLibrariesResponse(libraries=client.libraries())
    if as_json:
        output.print_json(libraries)
    elif libraries.libraries:
        output.print_libraries(libraries.libraries)
    else:
        click.echo(
            "No libraries. Create one: `imagesearch library create NAME --type whole-image`."
        )


@library.command()
@click.argument("name")
@_as_json
@connection_options()
def get(name: str, as_json: bool) -> None:
    """Show a library."""
    with connected() as client:
        found = client.get_library(name=f"libraries/{values.library_id(name)}")
    output.print_json(found) if as_json else output.print_libraries([found])


@library.command()
@click.argument("name")
@click.option("--display-name", metavar="TEXT", help="Human-readable name.")
@click.option("--description", metavar="TEXT", help="Human-readable description.")
@click.option(
    "--capacity",
    type=click.IntRange(min=0),
    metavar="N",
    help="Maximum number of images; 0: no limit.",
)
@click.option(
    "--thumbnails/--no-thumbnails",
    default=None,
    help="Store a thumbnail of each image added from now on.",
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
    """Update the given fields of a library."""
    with connected() as client:
        updated = client.update_library(
            name=f"libraries/{values.library_id(name)}",
            display_name=display_name,
            description=description,
            capacity=capacity,
            thumbnails_disabled=None if thumbnails is None else not thumbnails,
        )
    output.print_json(updated) if as_json else output.print_libraries([updated])


@library.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@connection_options()
def delete(name: str, yes: bool) -> None:
    """Delete a library and all its images permanently."""
    full_name = f"libraries/{values.library_id(name)}"
    with connected() as client:
        if sys.stdin.isatty() and not yes:
            count = client.get_library(name=full_name).image_count
            click.confirm(f"Delete {full_name} with its {count:,} images permanently?", abort=True)
        client.delete_library(name=full_name)
    click.echo(f"Deleted {full_name}.")
