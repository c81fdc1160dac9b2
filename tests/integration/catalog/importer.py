"""A program for tests that stores entries until it is killed.

    importer.py FOLDER INDEXING_THRESHOLD

Each output line is the number of an entry whose write was acknowledged. Entry `n` has the image id
`image n` and the vector `random_units(1, seed=n)[0]`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch_services.common.logs import configure_logs
from tests.contract.catalog.support import make_entry, random_units, running_catalog, settings_for

BATCH = 5


async def store_until_killed(folder: Path, indexing_threshold: str) -> None:
    configure_logs("catalog", "error")
    settings = settings_for(folder, INDEXING_THRESHOLD=indexing_threshold)
    async with running_catalog(settings) as catalog:
        await catalog.make_library("imported")
        start = 0
        while True:
            numbers = range(start, start + BATCH)
            entries = [
                make_entry(f"image {number}", random_units(1, seed=number)[0], tags={"n": number})
                for number in numbers
            ]
            request = pb.PutEntriesRequest(library_id="imported", entries=entries)
            response = await catalog.stub.PutEntries(request)
            stored = zip(numbers, response.results, strict=True)
            lines = [f"{number}\n" for number, result in stored if result.HasField("entry")]
            sys.stdout.write("".join(lines))
            sys.stdout.flush()
            start += BATCH


if __name__ == "__main__":
    asyncio.run(store_until_killed(Path(sys.argv[1]), sys.argv[2]))
