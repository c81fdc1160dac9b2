"""The command line `imagesearch`.

At the top, modules import only click and the standard library. Commands import the client, gRPC and
rich when they run, so that `--help` and completion are fast.
"""

from imagesearch.cli.app import main

__all__ = ["main"]
