"""Start the Catalog: `python -m imagesearch_services.catalog`."""

from __future__ import annotations

import asyncio
import sys

from imagesearch_services.catalog.app import build
from imagesearch_services.catalog.settings import Settings
from imagesearch_services.catalog.storage import FolderLockedError, NewerFormatError
from imagesearch_services.catalog.thumbnails.installation import ForeignStoreError
from imagesearch_services.common.env import SettingsError
from imagesearch_services.common.errors import ServiceError
from imagesearch_services.common.server import serve


async def _run(settings: Settings) -> None:
    await serve(await build(settings))


def main() -> int:
    """Read the settings and serve until stopped; return the exit status."""
    try:
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
    sys.exit(main())
