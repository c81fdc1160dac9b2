"""python -m imagesearch.demo [--images FOLDER] [--target HOST:PORT]"""  # noqa: D415

from __future__ import annotations

from pathlib import Path

import click

from imagesearch.cli.connection import connected, connection_options
from imagesearch.demo import element, product, whole_image

DEMOS = {
    "Whole images: which stored picture is this a copy of?": whole_image.run,
    "Elements: which stored print, pattern or object appears in this photo, and where?": (
        element.run
    ),
    "Products: which stored product does this photo show?": product.run,
}
"""Demos by title. Arguments: a client, and the user's folder or None. Each returns its success."""


@click.command()
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Folder with your pictures.  [default: the pictures of scikit-image]",
)
@connection_options(from_environment=True)
@click.pass_context
def main(ctx: click.Context, images: Path | None) -> None:
    """Add real pictures, search with edited copies of them, and check the results."""
    passed = True
    with connected() as client:
        for title, run in DEMOS.items():
            click.echo(title)
            passed &= run(client, images)
    ctx.exit(0 if passed else 1)


if __name__ == "__main__":
    main(prog_name="python -m imagesearch.demo")
