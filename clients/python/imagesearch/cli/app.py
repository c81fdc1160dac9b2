"""The command `imagesearch` and its parts."""

from __future__ import annotations

import click

from imagesearch.cli.add import add
from imagesearch.cli.compare import compare
from imagesearch.cli.connection import connection_options
from imagesearch.cli.detect import detect
from imagesearch.cli.duplicates import duplicates, reject
from imagesearch.cli.image import image
from imagesearch.cli.library import library
from imagesearch.cli.search import search
from imagesearch.cli.status import status


class InOrder(click.Group):
    """Lists its commands in the order in which they are met, not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)


EPILOG = """\b
Examples:
  imagesearch library create photos --type whole-image
  imagesearch add photos ~/Pictures --tag year=2024
  imagesearch search photos copy.jpg --filter 'tags.year >= 2020'
  imagesearch search photos *.jpg --json | jq -r '.matches[0].image.imageId'
"""


@click.group(cls=InOrder, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)
@connection_options(from_environment=True)
@click.version_option(package_name="imagesearch")
def main() -> None:
    """Search by image over libraries that you build.

    Put pictures into a library, then ask with a picture: which stored ones are the same or an
    edited copy (whole-image), which pattern or logo appears in it (element), which product does it
    show (product).

    Exit status: 0 done, 1 something failed, 2 wrong usage.
    """


for command in (library, add, search, duplicates, reject, image, detect, compare, status):
    main.add_command(command)
