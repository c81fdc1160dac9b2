"""Takes picture files apart into the parts of their container, and builds files from parts.

A file that is built from changed parts has valid lengths and checksums again, so that a decoder
does not stop at the container but reads the change. A part may ask for a false length or checksum.

Two formats hold positions of other data in the file (TIFF, AVIF). Their changed directory is
written behind the original file, so that the positions in it stay valid.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass
class Part:
    """A segment, chunk, block, box or directory entry of a file."""

    kind: bytes
    """Marker, chunk type, box type, or tag and value type."""
    body: bytes
    children: list[Part] = field(default_factory=list)
    """Boxes inside of a box, behind its body."""
    false_length: int | None = None
    """Length to write instead of the true one."""
    is_damaged: bool = False
    """Write a false checksum, in formats with checksums."""
    gap_bytes: int = 0
    """Bytes that the original part took."""

    def copy(self) -> Part:
        children = [child.copy() for child in self.children]
        return Part(
            self.kind, self.body, children, self.false_length, self.is_damaged, self.gap_bytes
        )

    def length(self, true_length: int, bits: int) -> int:
        length = true_length if self.false_length is None else self.false_length
        return length % (1 << bits)


Parts = list[Part]


@dataclass(frozen=True)
class Container:
    """How the files of a format are taken apart and built."""

    parse: Callable[[bytes], Parts]
    build: Callable[[Parts], bytes]


RAW = b"raw"
"""Kind of a part that is written as it is."""

MARKERS_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xDA)}


def parse_jpeg(content: bytes) -> Parts:
    parts, at = [], 0
    while at + 2 <= len(content):
        marker = content[at + 1]
        if marker in MARKERS_WITHOUT_LENGTH:
            parts.append(Part(bytes([marker]), b""))
            at += 2
            continue
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        parts.append(Part(bytes([marker]), content[at + 4 : end]))
        at = end
        if marker == 0xDA:
            while at < len(content) and (content[at] != 0xFF or content[at + 1] in range(0xD8)):
                at += 1
                if content[at - 1] == 0xFF and 0xD0 <= content[at] < 0xD8:
                    at += 1
            parts.append(Part(RAW, content[end:at]))
    return parts


def build_jpeg(parts: Parts) -> bytes:
    pieces = []
    for part in parts:
        if part.kind == RAW:
            pieces.append(part.body)
        elif part.kind[0] in MARKERS_WITHOUT_LENGTH:
            pieces.append(b"\xff" + part.kind)
        else:
            length = part.length(len(part.body) + 2, 16)
            pieces.append(b"\xff" + part.kind + length.to_bytes(2, "big") + part.body)
    return b"".join(pieces)


PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def parse_png(content: bytes) -> Parts:
    parts, at = [], 8
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        parts.append(Part(content[at + 4 : at + 8], content[at + 8 : end]))
        at = end + 4
    return parts


def build_png(parts: Parts) -> bytes:
    return PNG_SIGNATURE + b"".join(png_chunk(part) for part in parts)


def png_chunk(part: Part) -> bytes:
    length = part.length(len(part.body), 32)
    checksum = zlib.crc32(part.kind + part.body) ^ part.is_damaged
    return length.to_bytes(4, "big") + part.kind + part.body + checksum.to_bytes(4, "big")


def parse_webp(content: bytes) -> Parts:
    parts, at = [], 12
    while at + 8 <= len(content):
        end = at + 8 + int.from_bytes(content[at + 4 : at + 8], "little")
        parts.append(Part(content[at : at + 4], content[at + 8 : end]))
        at = end + end % 2
    return parts


def build_webp(parts: Parts) -> bytes:
    chunks = []
    for part in parts:
        length = part.length(len(part.body), 32)
        chunks.append(part.kind + length.to_bytes(4, "little") + part.body)
        chunks.append(b"\0" * (len(part.body) % 2))
    body = b"".join(chunks)
    return b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WEBP" + body


def parse_gif(content: bytes) -> Parts:
    def sub_blocks_end(at: int) -> int:
        while at < len(content) and content[at]:
            at += 1 + content[at]
        return at + 1

    def table_bytes(flags: int) -> int:
        return 3 << ((flags & 7) + 1) if flags & 0x80 else 0

    at = 13 + table_bytes(content[10])
    parts = [Part(RAW, content[:at])]
    while at < len(content):
        if content[at] == 0x2C:
            data_at = at + 11 + table_bytes(content[at + 9])
            end = sub_blocks_end(data_at)
            parts += [
                Part(RAW, content[at:data_at]),
                Part(b"data", _joined(content[data_at:end])),
            ]
        else:
            end = sub_blocks_end(at + 2) if content[at] == 0x21 else at + 1
            parts.append(Part(RAW, content[at:end]))
        at = end
    return parts


def _joined(sub_blocks: bytes) -> bytes:
    pieces, at = [], 0
    while at < len(sub_blocks) and sub_blocks[at]:
        pieces.append(sub_blocks[at + 1 : at + 1 + sub_blocks[at]])
        at += 1 + sub_blocks[at]
    return b"".join(pieces)


def build_gif(parts: Parts) -> bytes:
    pieces = []
    for part in parts:
        if part.kind == RAW:
            pieces.append(part.body)
            continue
        for at in range(0, len(part.body), 255):
            block = part.body[at : at + 255]
            pieces += [bytes([part.length(len(block), 8)]), block]
        pieces.append(b"\0")
    return b"".join(pieces)


def parse_bmp(content: bytes) -> Parts:
    info_end = 14 + int.from_bytes(content[14:18], "little")
    pixels_at = int.from_bytes(content[10:14], "little")
    return [
        Part(RAW, content[:14]),
        Part(RAW, content[14:info_end]),
        Part(RAW, content[info_end:pixels_at]),
        Part(RAW, content[pixels_at:]),
    ]


def build_raw(parts: Parts) -> bytes:
    return b"".join(part.body for part in parts)


TIFF_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
}
"""Bytes of a value of each TIFF type (TIFF 6.0, section 2; BigTIFF)."""


def parse_tiff(content: bytes) -> Parts:
    """Return the whole file, and then the entries of its first directory."""
    order = "<" if content[:2] == b"II" else ">"
    is_big = content[2:4] in {b"\x2b\0", b"\0\x2b"}
    at = struct.unpack_from(order + ("Q" if is_big else "I"), content, 8 if is_big else 4)[0]
    count = struct.unpack_from(order + ("Q" if is_big else "H"), content, at)[0]
    at += 8 if is_big else 2
    parts = [Part(RAW, content)]
    for _ in range(count):
        tag, kind, values = struct.unpack_from(order + ("HHQ" if is_big else "HHI"), content, at)
        size = TIFF_SIZES.get(kind, 1) * values
        inline = at + (12 if is_big else 8)
        if size > (8 if is_big else 4):
            value_at = struct.unpack_from(order + ("Q" if is_big else "I"), content, inline)[0]
        else:
            value_at = inline
        body = content[value_at : value_at + size]
        parts.append(Part(struct.pack(order + "HH", tag, kind), body))
        at += 20 if is_big else 12
    return parts


def build_tiff(parts: Parts) -> bytes:
    """Write the directory behind the original file; its entries are in the order of the parts."""
    content = bytearray(
        next((part.body for part in parts if part.kind == RAW), b"II*\0" + bytes(12))
    )
    order = "<" if content[:2] == b"II" else ">"
    is_big = bytes(content[2:4]) in {b"\x2b\0", b"\0\x2b"}
    inline_bytes, number = (8, "Q") if is_big else (4, "I")
    entries = []
    for part in parts:
        if part.kind == RAW or len(part.kind) != 4:
            continue
        kind = struct.unpack(order + "HH", part.kind)[1]
        count = part.length(len(part.body) // TIFF_SIZES.get(kind, 1), 64 if is_big else 32)
        value = part.body
        if len(value) > inline_bytes:
            value = struct.pack(order + number, len(content))
            content += part.body
        entries.append(
            part.kind + struct.pack(order + number, count) + value.ljust(inline_bytes, b"\0")
        )
    content[8 if is_big else 4 : 16 if is_big else 8] = struct.pack(order + number, len(content))
    content += struct.pack(order + ("Q" if is_big else "H"), len(entries))
    return bytes(content) + b"".join(entries) + bytes(inline_bytes)


BOXES_WITH_BOXES = {
    b"meta": 4, b"iprp": 0, b"ipco": 0, b"iinf": 6, b"iref": 4, b"moov": 0, b"trak": 0, b"mdia": 0,
    b"minf": 0, b"stbl": 0, b"dinf": 0, b"dref": 8, b"edts": 0,
}  # fmt: skip
"""Bytes before the inner boxes, by box type (ISO/IEC 14496-12)."""


def parse_avif(content: bytes) -> Parts:
    return list(_boxes(content))


def _boxes(content: bytes) -> Iterator[Part]:
    at = 0
    while at + 8 <= len(content):
        size, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        end = at + size if size >= 8 else len(content)
        prefix = BOXES_WITH_BOXES.get(kind)
        inner = end if prefix is None else at + 8 + prefix
        yield Part(kind, content[at + 8 : inner], list(_boxes(content[inner:end])))
        at = end


def build_avif(parts: Parts) -> bytes:
    """Write changed `meta` and `moov` boxes last, and a gap of the original size in their place."""
    first, last = [], []
    for part in parts:
        box = build_box(part)
        if part.kind in {b"meta", b"moov"}:
            first.append(build_box(Part(b"free", bytes(part.gap_bytes))))
            last.append(box)
        else:
            first.append(box)
    return b"".join(first + last)


def build_box(part: Part) -> bytes:
    body = part.body + b"".join(build_box(child) for child in part.children)
    return part.length(len(body) + 8, 32).to_bytes(4, "big") + part.kind + body


def keep_gaps(parts: Parts) -> Parts:
    """Note the size of the directories of an AVIF, which their place keeps."""
    for part in parts:
        if part.kind in {b"meta", b"moov"}:
            part.gap_bytes = len(build_box(part)) - 8
    return parts


CONTAINERS = {
    "jpeg": Container(parse_jpeg, build_jpeg),
    "png": Container(parse_png, build_png),
    "webp": Container(parse_webp, build_webp),
    "gif": Container(parse_gif, build_gif),
    "bmp": Container(parse_bmp, build_raw),
    "tiff": Container(parse_tiff, build_tiff),
    "avif": Container(lambda content: keep_gaps(parse_avif(content)), build_avif),
}
