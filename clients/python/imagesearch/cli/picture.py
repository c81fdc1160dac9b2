"""`imagesearch detect`: a picture that is not stored."""
# ruff: noqa: PLC0415  # the client waits for the command that needs it

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagesearch.cli import output, saving, values
from imagesearch.cli.connection import connected, connection_options
from imagesearch.cli.search import read_picture

if TYPE_CHECKING:
    from imagesearch.client import Box


@click.command()
@click.argument("file")
@click.option("--region", type=values.RegionParameter(), help="Look only here, in pixels.")
@click.option("--category", type=click.Choice(values.CATEGORIES, case_sensitive=False))
@click.option("--json", "as_json", is_flag=True, help="Print the response message.")
@saving.save_option
@saving.html_option
@connection_options()
def detect(
    *,
    file: str,
    region: Box | None,
    category: str | None,
    as_json: bool,
    save: Path | None,
    html: Path | None,
) -> None:
    """Tell the subjects of a picture: box, category, colours, attributes."""
    if html:
        saving.require_report()
    image = read_named(file)
    with connected() as client:
        answer = client.detect_subjects(
            image=image,
            region=region,
            category=values.category(category),
            annotation=saving.drawing_options(save),
        )
    if save:
        saving.save_drawing(save, answer.annotated_image)
        answer.ClearField("annotated_image")
    if html:
        from imagesearch.report import detection_page

        saving.write(html, detection_page(file, image, answer).encode())
    if as_json:
        output.print_json(answer)
    elif answer.subjects:
        output.print_subjects(answer.subjects)
    else:
        click.echo("Nothing stands out.")


def read_named(file: str) -> bytes:
    """Read a picture; say which file it was where that fails."""
    try:
        return read_picture(file)
    except OSError as error:
        raise click.ClickException(f"{file}: {output.os_message(error)}") from error
