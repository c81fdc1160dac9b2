"""Fuzz the parsers that are written in Python, guided by their coverage.

    python -m tests.fuzz.parsers --target headers --runs 200000 --folder /tmp/fuzz/parsers

Targets: `headers` (the checks of picture files and Pillow's readers of headers), `filters` (filter
strings), `tokens` (page tokens: altered ones, and bodies that are signed with the right key). Each
input must be accepted or refused with a ServiceError. An exception of another type ends the run and
is saved in the folder. atheris keeps inputs that reach new code in the folder: a later run starts
from them.

Decoders in C report no coverage to atheris, since Pillow and its libraries are built without its
instrumentation: `tests.fuzz.pictures` fuzzes them without guidance.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import time
import zlib
from collections.abc import Callable, Collection
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["PIL", "imagesearch_services"]):
    from PIL import (  # noqa: F401  # instrumented
        AvifImagePlugin,
        BmpImagePlugin,
        ExifTags,
        GifImagePlugin,
        ImageFile,
        JpegImagePlugin,
        MpoImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    from imagesearch_services.embedding.pictures.picture_file import PictureFile
    from imagesearch_services.gateway.contract.filter_parser import parse_filter
    from imagesearch_services.gateway.duplicates.tokens import VERSION as DUPLICATES_VERSION
    from imagesearch_services.gateway.duplicates.tokens import DuplicateTokens
    from imagesearch_services.gateway.search.page_tokens import VERSION as SEARCH_VERSION
    from imagesearch_services.gateway.search.page_tokens import PageTokens
    from imagesearch_services.gateway.tokens import TokenKey

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.embedding.cage.protocol import ERRORS
from tests.fuzz.pictures.mutators import MAX_BYTES, mutated, mutated_bytes
from tests.fuzz.pictures.seeds import seeds
from tests.fuzz.requests import filters

FILTERS = 300
"""Filter strings to start from."""
SHARE_OF_OWN_CHANGES = 4
"""One of so many changes is made by atheris itself, the others know the structure."""


def require(refusal: ServiceError, known: Collection[Reason]) -> None:
    """Fail if the reason of a refusal is not one of those that the target may give."""
    if refusal.reason not in known:
        raise AssertionError(refusal.reason)


def try_header(content: bytes) -> None:
    try:
        _ = PictureFile(content).shown_size
    except ServiceError as refusal:
        require(refusal, ERRORS)


def try_filter(content: bytes) -> None:
    try:
        parse_filter(content.decode(errors="replace"))
    except ServiceError as refusal:
        require(refusal, {Reason.FILTER_INVALID, Reason.FIELD_INVALID})


KEY = TokenKey(b"key of the tests")
DECODERS: tuple[tuple[bytes, Callable[[str], object], Callable[[bytes], bytes]], ...] = (
    (SEARCH_VERSION, PageTokens(KEY, time.time).decode, lambda body: zlib.compress(body, 1)),
    (SEARCH_VERSION, PageTokens(KEY, time.time).decode, bytes),
    (DUPLICATES_VERSION, DuplicateTokens(KEY).decode, bytes),
)
"""Version, reader and packing of each kind of page token."""


def try_token(content: bytes) -> None:
    for version, decode, pack in DECODERS:
        for token in (content.decode(errors="replace"), KEY.sign(version, pack(content))):
            try:
                decode(token)
            except ServiceError as refusal:
                require(refusal, {Reason.PAGE_TOKEN_INVALID, Reason.PAGE_TOKEN_EXPIRED})


def change(content: bytes, max_size: int, seed: int) -> bytes:
    """Change an input with knowledge of pictures, or leave it to atheris."""
    random_ = random.Random(seed)  # noqa: S311  # reproducible
    if random_.randrange(SHARE_OF_OWN_CHANGES) == 0:
        return bytes(atheris.Mutate(content, max_size))
    corpus = {
        name: [content] for name, files in SEEDS.items() if content[:4] == files[0][:4]
    } or SEEDS
    try:
        return mutated(corpus, random_)[1][:max_size]
    except (ValueError, IndexError, OverflowError, struct.error):  # no container any more
        return mutated_bytes(content, random_)[:max_size]


SEEDS = seeds()
TARGETS: dict[str, Callable[[bytes], None]] = {
    "headers": try_header,
    "filters": try_filter,
    "tokens": try_token,
}


def write_seeds(target: str, folder: Path) -> None:
    random_ = random.Random(0)  # noqa: S311  # reproducible
    contents = {
        "headers": [content for files in SEEDS.values() for content in files],
        "filters": [filters.text(random_).encode() for _ in range(FILTERS)],
        "tokens": [b'["uid",{"a":"b"},1,"token","00",1,"00",1]', b"{}", b"\0" * 64],
    }[target]
    for number, content in enumerate(contents):
        (folder / f"seed-{number}").write_bytes(content)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", choices=TARGETS, required=True)
    parser.add_argument("--runs", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/fuzz/parsers"), help="inputs")  # noqa: S108
    options = parser.parse_args()
    folder = options.folder / options.target
    folder.mkdir(parents=True, exist_ok=True)
    write_seeds(options.target, folder)
    command = [
        sys.argv[0],
        f"-runs={options.runs}",
        f"-max_len={MAX_BYTES // 10}",
        "-rss_limit_mb=2000",
        f"-artifact_prefix={folder.parent}/{options.target}-",
        str(folder),
    ]
    changes = {"custom_mutator": change} if options.target == "headers" else {}
    atheris.Setup(command, TARGETS[options.target], **changes)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
