"""Starts the Catalog: `python -m imagesearch_services.catalog`."""

from __future__ import annotations

import asyncio
import sys

from imagesearch_services.catalog.app import make_blobs, make_service, make_storage
from imagesearch_services.catalog.installation import ForeignStoreError
from imagesearch_services.catalog.settings import Settings
from imagesearch_services.catalog.storage import FolderLockedError
from imagesearch_services.common.env import SettingsError
from imagesearch_services.common.errors import ServiceError
from imagesearch_services.common.server import serve


async def run() -> None:
    settings = Settings.from_env()
    service = await make_service(
        make_storage(settings),
        settings.server,
        make_blobs(settings),
        sweep_interval_s=settings.blob_sweep_interval_s,
    )
    await serve(service)


def main() -> int:
    try:
        asyncio.run(run())
    except ForeignStoreError as error:
        sys.stderr.write(f"imagesearch catalog: IMAGESEARCH_CATALOG_BLOB_STORE: {error}\n")
        return 2
    except (SettingsError, FolderLockedError) as error:
        sys.stderr.write(f"imagesearch catalog: {error}\n")
        return 2
    except ServiceError as error:
        sys.stderr.write(f"imagesearch catalog: {error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
