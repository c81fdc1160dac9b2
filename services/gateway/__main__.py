"""Run the Gateway: `python -m imagesearch_services.gateway`."""

from __future__ import annotations

import asyncio
import sys

from imagesearch_services.common.env import SettingsError
from imagesearch_services.common.server import serve
from imagesearch_services.gateway.app import build
from imagesearch_services.gateway.scoring.calibration import CalibrationError
from imagesearch_services.gateway.settings import Settings


async def _run(settings: Settings) -> None:
    await serve(build(settings))


def main() -> None:
    """Read the settings and serve until SIGTERM or SIGINT."""
    try:
        asyncio.run(_run(Settings.from_env()))
    except (SettingsError, CalibrationError) as error:
        sys.exit(f"gateway: {error}")


if __name__ == "__main__":
    main()
