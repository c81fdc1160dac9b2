"""The commands `check` and `repair` of `python -m imagesearch_services.catalog`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from imagesearch_services.catalog.inspection.check import Check
from imagesearch_services.catalog.inspection.repair import repair
from imagesearch_services.catalog.inspection.report import Report
from imagesearch_services.catalog.settings import Settings
from imagesearch_services.catalog.storage import FolderLockedError, NewerFormatError
from imagesearch_services.catalog.thumbnails.installation import ForeignStoreError
from imagesearch_services.common.errors import ServiceError
from imagesearch_services.common.logs import configure_logs

COMMANDS = ("check", "repair")


def run(arguments: Sequence[str]) -> int:
    """Run a command; return 0 if nothing is wrong (any more), 1 if something is, 2 if refused."""
    options = _parse(arguments)
    configure_logs("catalog", "warning")
    settings = Settings.from_env()
    if options.data_dir is not None:
        settings = replace(settings, data_dir=options.data_dir)
    if settings.backend != "edge":
        return _refuse("a Qdrant server checks its own data; this command is for BACKEND=edge")
    if not (settings.data_dir / "catalog").is_dir():
        return _refuse(f"{settings.data_dir} holds no data of a Catalog")
    done: list[str] = []
    try:
        if options.command == "repair" and not options.dry_run:
            dropping = options.drop_damaged_entries
            done = asyncio.run(repair(settings, drop_damaged_entries=dropping))
        report = _check(settings, options)
    except (FolderLockedError, NewerFormatError, ForeignStoreError) as error:
        return _refuse(str(error))
    except ServiceError as error:
        return _refuse(error.message, status=1)
    if options.as_json:
        sys.stdout.write(json.dumps({**report.as_json(), "done": done}, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join([*(f"done: {text}" for text in done), *report.lines(), ""]))
    return 0 if report.ok else 1


def _check(settings: Settings, options: argparse.Namespace) -> Report:
    scratch = None if options.quick else options.scratch or Path(tempfile.gettempdir())
    thumbnails = None
    if not settings.blob_store:
        thumbnails = settings.data_dir / "catalog" / "thumbnails"
    return Check(settings.data_dir / "catalog" / "libraries", scratch, thumbnails).run()


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="imagesearch catalog")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser(
        "check", help="say what a stopped data folder holds and what is damaged; changes nothing"
    )
    fix = commands.add_parser(
        "repair", help="restore what can be restored, then check again; deletes nothing"
    )
    for command in (check, fix):
        command.add_argument(
            "--data-dir", type=Path, help="data folder; default: IMAGESEARCH_CATALOG_DATA_DIR"
        )
        command.add_argument("--json", dest="as_json", action="store_true", help="print JSON")
        command.add_argument("--quick", action="store_true", help="do not read the entries")
        command.add_argument(
            "--scratch",
            type=Path,
            help="folder for a copy of the largest library; default: the temporary folder",
        )
    fix.add_argument("--dry-run", action="store_true", help="only say what would be done")
    fix.add_argument(
        "--drop-damaged-entries",
        action="store_true",
        help="delete the entries that fail their checksums",
    )
    return parser.parse_args(arguments)


def _refuse(message: str, *, status: int = 2) -> int:
    sys.stderr.write(f"imagesearch catalog: {message}\n")
    return status
