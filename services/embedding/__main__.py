"""Start the Embedding service: `python -m imagesearch_services.embedding`."""

from __future__ import annotations

import asyncio

from imagesearch_services.common.env import Env
from imagesearch_services.common.server import serve
from imagesearch_services.embedding.app import build
from imagesearch_services.embedding.settings import PREFIX, Settings


async def main() -> None:
    await serve(build(Settings.from_env(Env(PREFIX))))


if __name__ == "__main__":
    asyncio.run(main())
