"""`imagesearch detect`: the subjects of pictures."""
# ruff: noqa: PLC0415  # imported by the commands that use it

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
@click.option(
    "--region",
    type=values.RegionParameter(),
    help="Search only this part for subjects, in pixels.",
)
@click.option(
    "--category",
    type=click.Choice(values.CATEGORIES, case_sensitive=False),
    metavar="NAME",
    help=f"Only subjects of this category: {', '.join(values.CATEGORIES)}.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a response message per line.")
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
    """Detect the subjects of pictures.

    Prints the box, category, colors and attributes of each subject, the main subject first. Nothing
    is stored. FILE - is standard input.
    Answers are in the order of the files. If a file fails, an error takes the place of its answer,
    the other files are processed, and the exit status is 1.
    """
    if (save or html) and len(files) > 1:
        raise click.UsageError("--save and --html take a single picture.")
    saving.refuse_to_replace(files, save, html)
    if html:
        saving.require_report()
    failed = False
    with connected() as client:

        def detect_in(file: str) -> tuple[bytes, DetectSubjectsResponse]:
            content = read_picture(file)
            return content, client.detect_subjects(
                image=content,
                region=region,
                category=values.category(category),
                annotation=saving.annotation_options(save),
            )

        for file, outcome in in_order(detect_in, files, stop=client.close):
            if not as_json and len(files) > 1:
                click.echo(file)
            if isinstance(outcome, Exception):
                failed = True
                print_failure(file, outcome, client.target, as_json=as_json)
                continue
            content, answer = outcome
            picture = answer.annotated_image
            answer.ClearField("annotated_image")
            print_answer(answer, as_json=as_json)
            if save:
                saving.save_picture(save, picture)
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
        click.echo("No subject found.")
