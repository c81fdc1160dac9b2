"""TIFF files that cost more than pictures of their size (TIFF 6.0)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from tests.faults.hostile.png import zeros

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 1, 2, 3, 4, 5, 7
Entry = tuple[int, int, Sequence[int]]


def tiff(entries: Sequence[Entry], data: bytes = b"", following: int = 0) -> bytes:
    """Return a little-endian TIFF: header, directory, long values, data at the end.

    A value -1 stands for the position of the data.
    """
    values_at = 8 + 2 + 12 * len(entries) + 4
    sizes = [_size(kind, values) for _, kind, values in entries]
    data_at = values_at + sum(size for size in sizes if size > 4)
    directory, extra = struct.pack("<H", len(entries)), b""
    for tag, kind, values in sorted(entries, key=lambda entry: entry[0]):
        layout = {BYTE: "B", UNDEFINED: "B", ASCII: "B", SHORT: "H"}.get(kind, "I")
        numbers = [data_at if value == -1 else value for value in values]
        packed = struct.pack(f"<{len(numbers)}{layout}", *numbers)
        count = len(numbers) // 2 if kind == RATIONAL else len(numbers)
        directory += struct.pack("<HHI", tag, kind, count)
        if len(packed) > 4:
            directory += struct.pack("<I", values_at + len(extra))
            extra += packed
        else:
            directory += packed.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", following) + extra + data


def _size(kind: int, values: Sequence[int]) -> int:
    return len(values) * {BYTE: 1, UNDEFINED: 1, ASCII: 1, SHORT: 2}.get(kind, 4)


def basic(width: int, height: int, compression: int = 8, samples: int = 3) -> list[Entry]:
    return [
        (256, LONG, [width]),
        (257, LONG, [height]),
        (258, SHORT, [8] * samples),
        (259, SHORT, [compression]),
        (262, SHORT, [2 if samples == 3 else 1]),
        (277, SHORT, [samples]),
        (284, SHORT, [1]),
    ]


def tile(tile_width: int, tile_height: int) -> bytes:
    """A picture of 100 × 100 in the corner of one huge tile."""
    data = zeros(tile_width * tile_height * 3)
    sizes = [
        (322, LONG, [tile_width]),
        (323, LONG, [tile_height]),
        (324, LONG, [-1]),
        (325, LONG, [len(data)]),
    ]
    return tiff([*basic(100, 100), *sizes], data)


def strip(rows: int, compression: int = 8, width: int = 100, height: int = 100) -> bytes:
    """One strip that claims many more rows than the picture has."""
    data = zeros(min(rows * width * 3, 1 << 31))
    sizes = [(273, LONG, [-1]), (278, LONG, [rows]), (279, LONG, [len(data)])]
    return tiff([*basic(width, height, compression), *sizes], data)


def same_strips(count: int) -> bytes:
    """Each strip is the same data, decompressed again for each row."""
    data = zeros(3_000 * 3)
    sizes = [(273, LONG, [-1] * count), (278, LONG, [1]), (279, LONG, [len(data)] * count)]
    return tiff([*basic(3_000, count), *sizes], data)


def overlapping(count: int) -> bytes:
    """Strips that all reach to the end of a large file."""
    data = bytes(4_000_000)
    sizes = [(273, LONG, [-1] * count), (278, LONG, [1]), (279, LONG, [len(data)] * count)]
    return tiff([*basic(16, count, compression=5), *sizes], data)


def cyclic() -> bytes:
    """The next directory, and an inner one, are the directory itself."""
    entries = [
        *basic(100, 100, compression=1),
        (330, LONG, [8]),
        (34665, LONG, [8]),
        (34853, LONG, [8]),
    ]
    sizes: list[Entry] = [(273, LONG, [-1]), (278, LONG, [100]), (279, LONG, [30_000])]
    return tiff([*entries, *sizes], bytes(30_000), following=8)


def entries_flood() -> bytes:
    """65,535 entries that all read the same megabytes of values."""
    size = 9_000_000
    count = 65_000
    entry = b"".join(
        struct.pack("<HHII", 40_000 + n % 20_000, UNDEFINED, 8_000_000, 8) for n in range(count)
    )
    content = b"II*\0" + struct.pack("<IH", 8, count) + entry + bytes(4)
    return content + bytes(size - len(content))


def floating() -> bytes:
    """Floating point samples, 6,900 × 7,000."""
    width, height = 6_900, 7_000
    data = zeros(width * height * 4)
    entries: list[Entry] = [
        (256, LONG, [width]), (257, LONG, [height]), (258, SHORT, [32]), (259, SHORT, [8]),
        (262, SHORT, [1]), (273, LONG, [-1]), (277, SHORT, [1]), (278, LONG, [height]),
        (279, LONG, [len(data)]), (339, SHORT, [3]),
    ]  # fmt: skip
    return tiff(entries, data)


def kinds() -> Iterator[tuple[str, bytes]]:
    yield "tiff, 100 × 100 in a tile of 25,600 × 26,000", tile(25_600, 26_000)
    yield "tiff, 100 × 100 in a tile of 11,584 × 11,584", tile(11_584, 11_584)
    yield "tiff, 100 × 100 in a strip of 4,000,000 rows", strip(4_000_000)
    yield "tiff, 16,000 strips of the same data", same_strips(16_000)
    yield "tiff, 90,000 overlapping strips", overlapping(90_000)
    yield "tiff, directories in a cycle", cyclic()
    yield "tiff, 65,000 entries of 8 MB", entries_flood()
    yield "tiff, floating point, 6,900 × 7,000", floating()
    packed = zeros(6_900 * 7_000 * 3)
    large: list[Entry] = [(273, LONG, [-1]), (278, LONG, [7_000]), (279, LONG, [len(packed)])]
    yield "tiff, one strip of 6,900 × 7,000", tiff([*basic(6_900, 7_000), *large], packed)
