"""The command `imagesearch` with its subcommands."""

from __future__ import annotations

import click

from imagesearch.cli.add import add
from imagesearch.cli.catalog import catalog
from imagesearch.cli.compare import compare
from imagesearch.cli.connection import connection_options
from imagesearch.cli.detect import detect
from imagesearch.cli.duplicates import duplicates, reject
from imagesearch.cli.image import image
from imagesearch.cli.info import info
from imagesearch.cli.library import library
from imagesearch.cli.search import search
from imagesearch.cli.status import status


class OrderedGroup(click.Group):
    """Lists commands in the order of registration, not alphabetically."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)


EPILOG = """\b
Examples:
  imagesearch library create photos --type whole-image
  imagesearch add photos ~/Pictures --tag year=2024
  imagesearch search photos copy.jpg --filter 'tags.year >= 2020'
  imagesearch search photos *.jpg --json | jq -r '.matches[0].image.imageId'
"""


@click.group(
    cls=OrderedGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG
)
@connection_options(from_environment=True)
@click.version_option(package_name="imagesearch")
def main() -> None:
    """Search by image in libraries of your own pictures.

    Add pictures to a library, then search with a picture. The type of the library determines what
    a search finds: the same picture and edited copies of it (whole-image), stored patterns, logos
    and objects that appear in the picture (element), or the product that it shows (product).

    Exit status: 0 success, 1 failure, 2 wrong usage.
    """


COMMANDS = (
    library,
    add,
    search,
    duplicates,
    reject,
    image,
    detect,
    compare,
    status,
    info,
    catalog,
)

for command in COMMANDS:
    main.add_command(command)
