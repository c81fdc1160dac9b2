"""Changes of picture files: of container parts, of compressed data, and of plain bytes."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

from tests.fuzz.pictures.containers import CONTAINERS, Part, Parts

MAX_BYTES = 200_000
"""Maximum size of an input, so that many are tried in a second."""

NUMBERS = (
    0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 63, 64, 100, 127, 128, 129, 254, 255, 256, 257, 1023,
    1024,
    4095, 4096, 8192, 16383, 16384, 32767, 32768, 32769, 65534, 65535, 65536, 65537, 1 << 20,
    (1 << 24) - 1, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 2, (1 << 32) - 1, (1 << 63) - 1,
    1 << 63, (1 << 64) - 1,
)  # fmt: skip
"""Numbers at which implementations differ from specifications."""

FORMATS = ("<B", "<H", ">H", "<I", ">I", "<Q", ">Q", "<f", ">f", "<d", ">d")

COMPRESSED = {b"IDAT": 0, b"fdAT": 4}
"""PNG chunks whose body is compressed from this position on."""

Corpus = dict[str, list[bytes]]


def mutated(seeds: Corpus, random_: random.Random) -> tuple[str, bytes]:
    """Return a changed picture and the name of the format that it was made from."""
    name = random_.choice(tuple(seeds))
    container = CONTAINERS[name]
    content = random_.choice(seeds[name])
    kind = random_.random()
    if kind < 0.15:
        return name, mutated_bytes(content, random_)
    parts = container.parse(content)
    for _ in range(random_.choice((1, 1, 1, 2, 3, 6))):
        donor = container.parse(random_.choice(seeds[name])) if random_.random() < 0.2 else []
        parts = mutated_parts(name, parts, donor, random_)
    content = container.build(parts)
    if kind > 0.9:
        content = mutated_bytes(content, random_)
    return name, content[:MAX_BYTES]


def mutated_parts(name: str, parts: Parts, donor: Parts, random_: random.Random) -> Parts:
    """Change one part, or the order and number of the parts."""
    parts = [part.copy() for part in parts]
    siblings = _siblings(parts, random_)
    if not siblings:
        return donor
    at = random_.randrange(len(siblings))
    if donor:
        siblings.insert(at, random_.choice(donor))
    elif random_.random() < 0.08:
        siblings.insert(at, random_.choice(EXTRA[name])(random_))
    elif random_.random() < 0.4:
        random_.choice(PART_CHANGES)(siblings, at, random_)
    else:
        siblings[at].body = _mutated_body(siblings[at], random_)
    return parts


def _drop(siblings: Parts, at: int, _: random.Random) -> None:
    del siblings[at]


def _multiply(siblings: Parts, at: int, random_: random.Random) -> None:
    copies = random_.choice((1, 1, 2, 16, 256))
    siblings[at:at] = [siblings[at].copy() for _ in range(copies)]


def _reorder(siblings: Parts, at: int, random_: random.Random) -> None:
    part = siblings.pop(at)
    siblings.insert(random_.randint(0, len(siblings)), part)


def _lie(siblings: Parts, at: int, random_: random.Random) -> None:
    siblings[at].false_length = random_.choice(NUMBERS)


def _damage(siblings: Parts, at: int, _: random.Random) -> None:
    siblings[at].is_damaged = True


def _rename(siblings: Parts, at: int, random_: random.Random) -> None:
    kind = siblings[at].kind
    if len(kind) == 1:  # a JPEG marker
        siblings[at].kind = bytes([random_.randrange(0xC0, 0xFF)])
    elif len(kind) == 4:
        siblings[at].kind = mutated_bytes(kind, random_).ljust(4, b"\0")[:4]


PART_CHANGES: tuple[Callable[[Parts, int, random.Random], None], ...] = (
    _drop, _drop, _multiply, _multiply, _reorder, _lie, _damage, _rename,
)  # fmt: skip


def _siblings(parts: Parts, random_: random.Random) -> Parts:
    """Choose a list of parts, at any depth."""
    while True:
        inner = [part.children for part in parts if part.children]
        if not inner or random_.random() < 0.2:
            return parts
        parts = random_.choice(inner)


def _mutated_body(part: Part, random_: random.Random) -> bytes:
    start = COMPRESSED.get(part.kind)
    if start is None or random_.random() < 0.3:
        return mutated_bytes(part.body, random_)
    try:
        raw = zlib.decompress(part.body[start:])
    except zlib.error:
        return mutated_bytes(part.body, random_)
    return part.body[:start] + zlib.compress(mutated_bytes(raw, random_), 1)


def mutated_bytes(content: bytes, random_: random.Random) -> bytes:
    """Change a few bytes: bits, numbers at the border of their range, and blocks."""
    changed = bytearray(content)
    for _ in range(random_.choice((1, 1, 1, 2, 4, 16))):
        random_.choice(BYTE_CHANGES)(changed, random_)
    return bytes(changed[:MAX_BYTES])


def _flip(content: bytearray, random_: random.Random) -> None:
    if content:
        content[random_.randrange(len(content))] ^= 1 << random_.randrange(8)


def _set(content: bytearray, random_: random.Random) -> None:
    if content:
        content[random_.randrange(len(content))] = random_.randrange(256)


def _number(content: bytearray, random_: random.Random) -> None:
    layout = random_.choice(FORMATS)
    size = struct.calcsize(layout)
    if len(content) < size:
        return
    at = random_.randint(0, len(content) - size)
    if random_.random() < 0.5:
        at = at // size * size
    if layout[1] in "fd":
        number: float = random_.choice((0.0, -1.0, float("nan"), float("inf"), 1e-30, 1e30))
    elif random_.random() < 0.3:
        number = struct.unpack_from(layout, content, at)[0] + random_.choice((-8, -1, 1, 8))
        number %= 1 << 8 * size
    else:
        number = random_.choice(NUMBERS) % (1 << 8 * size)
    struct.pack_into(layout, content, at, number)


def _delete(content: bytearray, random_: random.Random) -> None:
    at = random_.randint(0, len(content))
    del content[at : at + random_.choice((1, 2, 4, 16, 256))]


def _insert(content: bytearray, random_: random.Random) -> None:
    at = random_.randint(0, len(content))
    count = random_.choice((1, 2, 4, 16, 256))
    filling = random_.choice((b"\0", b"\xff", b"\x80", random_.randbytes(1), random_.randbytes(16)))
    content[at:at] = (filling * count)[:count]


def _repeat(content: bytearray, random_: random.Random) -> None:
    at = random_.randint(0, len(content))
    block = content[at : at + random_.choice((1, 4, 16, 64))]
    content[at:at] = block * random_.choice((1, 2, 16, 256))


def _move(content: bytearray, random_: random.Random) -> None:
    size = random_.choice((1, 4, 16, 64))
    source, target = random_.randint(0, len(content)), random_.randint(0, len(content))
    block = content[source : source + size]
    content[target : target + len(block)] = block


def _truncate(content: bytearray, random_: random.Random) -> None:
    if random_.random() < 0.3:
        del content[random_.randint(0, len(content)) :]


BYTE_CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip, _set, _set, _number, _number, _number, _delete, _insert, _repeat, _move, _truncate,
)  # fmt: skip


def _jpeg_scan(random_: random.Random) -> Part:
    components = random_.choice((1, 3, 4))
    numbers = b"".join(bytes([index + 1, random_.choice((0, 0x11))]) for index in range(components))
    spectrum = random_.choice((b"\0\x3f\0", b"\0\0\0", b"\1\x05\2", b"\1\x3f\x21", b"\0\0\x10"))
    return Part(b"\xda", bytes([components]) + numbers + spectrum)


def _jpeg_application(random_: random.Random) -> Part:
    start = random_.choice(
        (b"Exif\0\0MM\0*\0\0\0\x08", b"ICC_PROFILE\0\1\xff", b"Adobe\0d\0\0\0\0\2",
         b"MPF\0II*\0\x08\0\0\0",
         b"JFIF\0\1\1\1\0\0\0\0\xff\xff", b"Photoshop 3.0\x008BIM\x04\x04\0\0")
    )  # fmt: skip
    return Part(bytes([random_.randrange(0xE0, 0xF0)]), start + random_.randbytes(40))


def _png_chunk(random_: random.Random) -> Part:
    kind = random_.choice(
        (b"zTXt", b"iTXt", b"tEXt", b"iCCP", b"eXIf", b"tRNS", b"PLTE", b"gAMA", b"acTL",
         b"fcTL", b"fdAT",
         b"pHYs", b"sRGB", b"cHRM", b"IEND", b"IHDR")
    )  # fmt: skip
    text = zlib.compress(random_.randbytes(4) * random_.choice((1, 1000, 100_000)))
    start = random_.choice((b"", b"key\0\0", b"key\0\1\0\0\0", b"\0"))
    return Part(kind, start + random_.choice((text, random_.randbytes(26), b"")))


def _webp_chunk(random_: random.Random) -> Part:
    kind = random_.choice(
        (b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"EXIF", b"XMP ", b"ICCP", b"VP8 ", b"VP8L")
    )
    return Part(kind, random_.randbytes(random_.choice((0, 6, 10, 16, 40))))


def _gif_block(random_: random.Random) -> Part:
    control = b"!\xf9\x04" + random_.randbytes(4) + b"\0"
    place = b"".join(random_.choice(NUMBERS).to_bytes(8, "little")[:2] for _ in range(4))
    image = b"," + place + random_.randbytes(1) + random_.randbytes(1)
    return Part(
        b"raw",
        random_.choice((control, image, b"!\xfe\xff" + random_.randbytes(255) + b"\0", b";")),
    )


def _tiff_entry(random_: random.Random) -> Part:
    tag = random_.choice(
        (254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323,
         324, 325, 330,
         338, 339, 347, 529, 530, 532, 33723, 34377, 34665, 34675, 34853, 700)
    )  # fmt: skip
    kind = random_.choice((1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 16, 0, 99))
    values = b"".join(
        random_.choice(NUMBERS).to_bytes(8, "little")[:4] for _ in range(random_.choice((1, 2, 4)))
    )
    return Part(struct.pack(random_.choice(("<HH", ">HH")), tag, kind), values)


def _bmp_bytes(random_: random.Random) -> Part:
    return Part(
        b"raw", bytes([0, random_.choice((0, 1, 2, 3, 255)), 255, 255]) * random_.choice((1, 500))
    )


def _avif_box(random_: random.Random) -> Part:
    kind = random_.choice(
        (b"ispe", b"irot", b"imir", b"clap", b"pixi", b"av1C", b"auxC", b"colr", b"iloc",
         b"ipma", b"infe",
         b"iref", b"idat", b"grid", b"pasp", b"meta", b"moov", b"iinf", b"pitm", b"hdlr", b"free")
    )  # fmt: skip
    return Part(kind, random_.randbytes(random_.choice((0, 1, 4, 12, 20))))


EXTRA: dict[str, tuple[Callable[[random.Random], Part], ...]] = {
    "jpeg": (_jpeg_scan, _jpeg_application),
    "png": (_png_chunk,),
    "webp": (_webp_chunk,),
    "gif": (_gif_block,),
    "bmp": (_bmp_bytes,),
    "tiff": (_tiff_entry,),
    "avif": (_avif_box,),
}
"""Parts that the seeds of a format lack."""
