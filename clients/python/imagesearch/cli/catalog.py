"""`imagesearch catalog`: check and repair the data folder of a stopped Catalog.

The command runs in the package of the services, which the client does not need otherwise.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import click

SERVICE = "imagesearch_services.catalog"


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    short_help="Check or repair the data folder of a stopped Catalog.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def catalog(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Check or repair the data folder of a stopped Catalog.

    `check` says per library what is fine, damaged, missing or set aside, and what is lost. It
    changes nothing. `repair` restores what can be restored.

    Exit status: 0 nothing is wrong, 1 something is, 2 refused (for example, a Catalog is running).
    """
    try:
        installed = importlib.util.find_spec(SERVICE) is not None
    except ModuleNotFoundError:
        installed = False
    if not installed:
        raise click.ClickException(
            "this command needs the services: install them with `pip install 'imagesearch[all]'` "
            "on the machine that holds the data folder"
        )
    command = [sys.executable, "-m", SERVICE, *(arguments or ("--help",))]
    ctx.exit(subprocess.run(command, check=False).returncode)  # noqa: S603
