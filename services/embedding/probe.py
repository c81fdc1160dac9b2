"""A picture with a known answer, to tell a model that answers from one that answers rightly.

A model can be loaded, ready and quick and still answer garbage (a backend that misreads its input
does). So every model's configuration carries what it gives for one synthetic picture, and a model
whose answer to that picture points elsewhere never serves.
"""

from __future__ import annotations

import base64
import math

import numpy as np
import numpy.typing as npt

MAX_ANSWER_LENGTH = 2048
"""Numbers of an answer that a configuration carries."""


def probe_picture(width: int, height: int) -> npt.NDArray[np.uint8]:
    """Draws the probe: shading, a chequered band, a disc and a bar, uint8 RGB [height, width, 3].

    Whole-number arithmetic only: the same pixels with any version of NumPy, on any machine. It has
    edges, textures, flat parts and every color channel of its own, so that swapped channels, axes
    or rows change the answer.
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    u, v = x * 256 // width, y * 256 // height  # 0 … 255 across and down
    picture = np.stack([u, 255 - v, (u + v) // 2], axis=-1)

    def box(left: int, top: int, right: int, bottom: int) -> npt.NDArray[np.bool_]:
        inside: npt.NDArray[np.bool_] = (u >= left) & (u < right) & (v >= top) & (v < bottom)
        return inside

    def disc(radius: int) -> npt.NDArray[np.bool_]:
        inside: npt.NDArray[np.bool_] = (u - 80) ** 2 + (v - 76) ** 2 < radius**2
        return inside

    chequers = (u // 16 + v // 16) % 2 == 1
    band = box(0, 160, 256, 224)
    picture[band & chequers] = (250, 240, 30)
    picture[band & ~chequers] = (20, 30, 90)
    picture[disc(52)] = (200, 30, 40)
    picture[disc(26)] = (240, 235, 220)
    picture[box(168, 24, 208, 136)] = (30, 120, 60)
    return picture.astype(np.uint8)


def probe_answer(output: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Flattens an output, and keeps every so manieth number of a long one, [≤ 2048].

    An embedding stays whole; of maps enough remains to tell whether they are the right ones.
    """
    flat = output.reshape(-1)
    return flat[:: max(1, -(-flat.size // MAX_ANSWER_LENGTH))]


def encode_answer(embedding: npt.NDArray[np.float32]) -> str:
    """Packs an embedding [D] of the probe: unit length, float16 little-endian, base64."""
    unit = embedding / math.sqrt(float(np.dot(embedding, embedding)))
    return base64.b64encode(unit.astype("<f2").tobytes()).decode("ascii")


def decode_answer(text: str) -> npt.NDArray[np.float32]:
    """Unpacks what `encode_answer` packed, as float32 [D].

    Raises:
        ValueError: the text is not base64 of whole float16 numbers.
    """
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f2").astype(np.float32)


def agreement(embedding: npt.NDArray[np.float32], answer: npt.NDArray[np.float32]) -> float:
    """Cosine between an embedding [D] and the known answer [D].

    Returns -1, the least there is, for whatever a broken model may give: another length, zeros,
    numbers that are none.
    """
    if embedding.shape != answer.shape or not np.isfinite(embedding).all():
        return -1.0
    a, b = embedding.astype(np.float64), answer.astype(np.float64)
    length = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / length if length > 0 else -1.0
