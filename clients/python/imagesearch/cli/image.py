"""`imagesearch image`: show, list, update and delete stored images."""
# ruff: noqa: PLC0415  # imported by the commands that use it

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

import click

from imagesearch.cli import output, values
from imagesearch.cli.connection import connected, connection_options, explain

if TYPE_CHECKING:
    from imagesearch.client import PlainTag


@click.group()
def image() -> None:
    """Show, list, update and delete stored images."""


@image.command()
@click.argument("library")
@click.argument("image_id")
@click.option("--json", "as_json", is_flag=True, help="Print the response message.")
@connection_options()
def get(library: str, image_id: str, as_json: bool) -> None:
    """Show an image."""
    with connected() as client:
        found = client.get_image(name=_name(library, image_id))
    output.print_json(found) if as_json else output.print_images([found])


@image.command()
@click.argument("library")
@click.argument("image_id")
@click.option(
    "-o",
    "--output",
    "file",
    required=True,
    type=click.File("wb", lazy=True),
    metavar="FILE",
    help="JPEG file to write; - is standard output.",
)
@connection_options()
def thumbnail(library: str, image_id: str, file: IO[bytes]) -> None:
    """Write the thumbnail of an image to a file."""
    with connected() as client:
        thumbnail = client.get_thumbnail(name=_name(library, image_id))
    file.write(thumbnail.content)  # the lazy file is created only now, after the call succeeded


@image.command("list")
@click.argument("library")
@click.option(
    "--filter",
    "filter_",
    default="",
    metavar="F",
    help="List only images that match, such as 'tags.year >= 2020'.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    metavar="N",
    help="Maximum number of images; 0: all.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the response message.")
@connection_options()
def list_(library: str, filter_: str, limit: int, as_json: bool) -> None:
    """List images."""
    from imagesearch.client import ListImagesResponse

    parent = f"libraries/{values.library_id(library)}"
    listed = ListImagesResponse()
    with connected() as client:
        page_token = ""
        for _ in itertools.count():
            remaining = limit - len(listed.images) if limit else 100
            page = client.list_images(
                parent=parent, filter=filter_, page_size=min(remaining, 100), page_token=page_token
            )
            listed.MergeFrom(page)
            listed.next_page_token = page_token = page.next_page_token
            if not page_token or (limit and len(listed.images) >= limit):
                break
    if as_json:
        output.print_json(listed)
        return
    if listed.images:
        output.print_images(listed.images)
    click.echo(f"{len(listed.images):,} of {listed.total_size:,} images.")


@image.command()
@click.argument("library")
@click.argument("image_id")
@click.option(
    "--tag", "tags", multiple=True, type=values.TagParameter(), help="Set a tag; repeatable."
)
@click.option("--untag", "untags", multiple=True, metavar="NAME", help="Remove a tag; repeatable.")
@click.option(
    "--category",
    type=click.Choice(values.CATEGORIES, case_sensitive=False),
    metavar="NAME",
    help=f"Category of the image: {', '.join(values.CATEGORIES)}.",
)
@click.option("--entity", metavar="ID", help="Id of the entity that the picture shows.")
@click.option("--custom-content", metavar="TEXT", help="Your own text about the image.")
@click.option("--json", "as_json", is_flag=True, help="Print the response message.")
@connection_options()
def update(
    *,
    library: str,
    image_id: str,
    tags: Sequence[tuple[str, PlainTag]],
    untags: Sequence[str],
    category: str | None,
    entity: str | None,
    custom_content: str | None,
    as_json: bool,
) -> None:
    """Update the given fields of an image."""
    if not (tags or untags) and category is None and entity is None and custom_content is None:
        raise click.UsageError(
            "Nothing to update: pass --tag, --untag, --category, --entity or --custom-content."
        )
    with connected() as client:
        updated = client.update_image(
            name=_name(library, image_id),
            entity_id=entity,
            category=None if category is None else values.category(category),
            custom_content=custom_content,
            set_tags={**dict.fromkeys(untags), **dict(tags)},
        )
    output.print_json(updated) if as_json else output.print_images([updated])


@image.command()
@click.argument("library")
@click.argument("image_ids", nargs=-1, metavar="[IMAGE_ID]...")
@click.option("--filter", "filter_", default="", metavar="F", help="Delete all images that match.")
@click.option("--entity", default="", metavar="ID", help="Delete all images of this entity.")
@connection_options()
@click.pass_context
def delete(
    ctx: click.Context, library: str, image_ids: Sequence[str], filter_: str, entity: str
) -> None:
    """Delete images by id, by filter or by entity."""
    if [bool(image_ids), bool(filter_), bool(entity)].count(True) != 1:
        raise click.UsageError("Pass image ids, --filter or --entity: exactly one of the three.")
    from imagesearch.client import ImageSearchError

    failed_count = 0
    with connected() as client:
        if not image_ids:
            answer = client.delete_images(
                parent=f"libraries/{values.library_id(library)}", filter=filter_, entity_id=entity
            )
            click.echo(f"Deleted {answer.deleted_count:,} images.")
        for image_id in image_ids:
            try:
                client.delete_image(name=_name(library, image_id))
            except ImageSearchError as error:
                if error.reason != "IMAGE_NOT_FOUND":
                    raise
                failed_count += 1
                click.echo(f"Error: {explain(error, client.target)}", err=True)
            else:
                click.echo(f"Deleted {image_id}.")
    ctx.exit(1 if failed_count else 0)


def _name(library: str, image_id: str) -> str:
    from imagesearch.client import image_name

    return image_name(values.library_id(library), image_id)
