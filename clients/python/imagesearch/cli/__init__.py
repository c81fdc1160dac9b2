"""The command line `imagesearch`.

Modules import only click and the standard library at the top. The client, gRPC and rich are
imported by the commands that use them, so that `--help` and completion are fast.
"""

from imagesearch.cli.app import main

__all__ = ["main"]
