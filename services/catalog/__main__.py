"""Start the Catalog: `python -m imagesearch_services.catalog`, or check and repair its data folder.

python -m imagesearch_services.catalog check --data-dir .imagesearch
python -m imagesearch_services.catalog repair --data-dir .imagesearch
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from imagesearch_services.catalog.app import build
from imagesearch_services.catalog.settings import Settings
from imagesearch_services.catalog.storage import FolderLockedError, NewerFormatError
from imagesearch_services.catalog.thumbnails.installation import ForeignStoreError
from imagesearch_services.common.env import SettingsError
from imagesearch_services.common.errors import ServiceError
from imagesearch_services.common.logs import configure_logs
from imagesearch_services.common.server import serve


async def _run(settings: Settings) -> None:
    configure_logs("catalog", settings.server.log_level)  # the start logs what it restores
    await serve(await build(settings))


def main(arguments: Sequence[str] = ()) -> int:
    """Serve until stopped, or run the command of the arguments; return the exit status."""
    try:
        if arguments:
            from imagesearch_services.catalog.inspection.command import run  # noqa: PLC0415

            return run(arguments)
        asyncio.run(_run(Settings.from_env()))
    except ForeignStoreError as error:
        sys.stderr.write(f"imagesearch catalog: IMAGESEARCH_CATALOG_BLOB_STORE: {error}\n")
        return 2
    except (SettingsError, FolderLockedError, NewerFormatError) as error:
        sys.stderr.write(f"imagesearch catalog: {error}\n")
        return 2
    except ServiceError as error:
        sys.stderr.write(f"imagesearch catalog: {error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
