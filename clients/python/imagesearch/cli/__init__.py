"""The command line `imagesearch`.

Modules here import click and little else at their top; the client, gRPC and rich wait for the
command that needs them, so that `--help` and completion are quick.
"""

from imagesearch.cli.app import main

__all__ = ["main"]
