"""`imagesearch detect`: what pictures show, storing nothing."""
# ruff: noqa: PLC0415  # the client waits for the command that needs it

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagesearch.cli import output, saving, values
from imagesearch.cli.connection import connected, connection_options
from imagesearch.cli.search import in_order, print_failure, read_picture

if TYPE_CHECKING:
    from imagesearch.client import Box, DetectSubjectsResponse


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--region", type=values.RegionParameter(), help="Look only here, in pixels.")
@click.option(
    "--category",
    type=click.Choice(values.CATEGORIES, case_sensitive=False),
    metavar="NAME",
    help=f"Only subjects of it: {', '.join(values.CATEGORIES)}.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one response message a line.")
@saving.save_option
@saving.html_option
@connection_options()
@click.pass_context
def detect(
    ctx: click.Context,
    *,
    files: Sequence[str],
    region: Box | None,
    category: str | None,
    as_json: bool,
    save: Path | None,
    html: Path | None,
) -> None:
    """Tell the subjects of pictures, the main one first: box, category, colours, attributes.

    - is standard input. With several files the answers keep their order; a file that can't be
    looked at gives an error in its place and exit status 1, and does not stop the others.
    """
    if (save or html) and len(files) > 1:
        raise click.UsageError("--save and --html show one picture.")
    saving.refuse_to_replace(files, save, html)
    if html:
        saving.require_report()
    failed = False
    with connected() as client:

        def look_at(file: str) -> tuple[bytes, DetectSubjectsResponse]:
            content = read_picture(file)
            return content, client.detect_subjects(
                image=content,
                region=region,
                category=values.category(category),
                annotation=saving.drawing_options(save),
            )

        for file, outcome in in_order(look_at, files, stop=client.close):
            if not as_json and len(files) > 1:
                click.echo(file)
            if isinstance(outcome, Exception):
                failed = True
                print_failure(file, outcome, client.target, as_json=as_json)
                continue
            content, answer = outcome
            drawing = answer.annotated_image
            answer.ClearField("annotated_image")
            print_answer(answer, as_json=as_json)
            if save:
                saving.save_drawing(save, drawing)
            if html:
                from imagesearch.report import detection_page

                saving.write(html, detection_page(file, content, answer).encode())
    ctx.exit(1 if failed else 0)


def print_answer(answer: DetectSubjectsResponse, *, as_json: bool) -> None:
    if as_json:
        output.print_json(answer)
    elif answer.subjects:
        output.print_subjects(answer.subjects)
    else:
        click.echo("Nothing stands out.")
