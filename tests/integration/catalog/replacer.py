"""A program for tests that replaces the same entries in rounds until it is killed.

    replacer.py FOLDER

Each output line is the number of an entry and the round of an acknowledged write. Entry `n` has the
image id `image n` and the thumbnail "n ROUND".
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

from imagesearch_services.common.logs import configure_logs
from tests.contract.catalog.support import make_entry, running_catalog, settings_for

ENTRIES = 12
BATCH = 4


async def replace_until_killed(folder: Path) -> None:
    configure_logs("catalog", "error")
    async with running_catalog(settings_for(folder)) as catalog:
        await catalog.make_library("replaced")
        for round_number in itertools.count():
            for start in range(0, ENTRIES, BATCH):
                numbers = range(start, start + BATCH)
                entries = [
                    make_entry(f"image {number}", thumbnail=f"{number} {round_number}".encode())
                    for number in numbers
                ]
                await catalog.store("replaced", *entries, allow_overwrite=[True] * BATCH)
                sys.stdout.write("".join(f"{number} {round_number}\n" for number in numbers))
                sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(replace_until_killed(Path(sys.argv[1])))
