"""Makes a probe picture with a known answer, which detects models that return wrong results.

A model can be loaded, ready and fast and still return garbage, for example if the backend misreads
its input. Therefore the configuration of each model contains its answer to a synthetic picture, and
a model that returns another answer is not served.
"""

from __future__ import annotations

import base64
import math

import numpy as np
import numpy.typing as npt

MAX_ANSWER_LENGTH = 2048
"""Maximum length of a known answer in a model's configuration, numbers."""


def probe_picture(width: int, height: int) -> npt.NDArray[np.uint8]:
    """Return the probe picture, uint8 RGB [height, width, 3].

    The picture shows shading, a checkered band, a disc and a bar. Integer arithmetic makes it the
    same with any version of NumPy on any machine. Edges, textures, flat parts and different color
    channels make the answer depend on the order of channels, axes and rows.
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    u, v = x * 256 // width, y * 256 // height  # 0 … 255 from left to right and from top to bottom
    picture = np.stack([u, 255 - v, (u + v) // 2], axis=-1)

    def rectangle(left: int, top: int, right: int, bottom: int) -> npt.NDArray[np.bool_]:
        inside: npt.NDArray[np.bool_] = (u >= left) & (u < right) & (v >= top) & (v < bottom)
        return inside

    def disc(radius: int) -> npt.NDArray[np.bool_]:
        inside: npt.NDArray[np.bool_] = (u - 80) ** 2 + (v - 76) ** 2 < radius**2
        return inside

    checkers = (u // 16 + v // 16) % 2 == 1
    band = rectangle(0, 160, 256, 224)
    picture[band & checkers] = (250, 240, 30)
    picture[band & ~checkers] = (20, 30, 90)
    picture[disc(52)] = (200, 30, 40)
    picture[disc(26)] = (240, 235, 220)
    picture[rectangle(168, 24, 208, 136)] = (30, 120, 60)
    return picture.astype(np.uint8)


def probe_answer(output: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Flatten an output and subsample it evenly to at most 2,048 numbers.

    Embeddings are shorter and stay complete; maps keep enough numbers to be recognized.
    """
    flat = output.reshape(-1)
    return flat[:: max(1, -(-flat.size // MAX_ANSWER_LENGTH))]


def encode_answer(embedding: npt.NDArray[np.float32]) -> str:
    """Encode an answer [D] to the probe as base64 of little-endian float16, at unit length."""
    unit = embedding / math.sqrt(float(np.dot(embedding, embedding)))
    return base64.b64encode(unit.astype("<f2").tobytes()).decode("ascii")


def decode_answer(text: str) -> npt.NDArray[np.float32]:
    """Decode a text of `encode_answer` to float32 [D].

    Raises:
        ValueError: the text is not base64 of complete float16 numbers.
    """
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f2").astype(np.float32)


def agreement(embedding: npt.NDArray[np.float32], answer: npt.NDArray[np.float32]) -> float:
    """Return the cosine of an embedding [D] and the known answer [D].

    Returns -1, the minimum, for an invalid embedding: wrong length, all zeros, NaN or infinity.
    """
    if embedding.shape != answer.shape or not np.isfinite(embedding).all():
        return -1.0
    a, b = embedding.astype(np.float64), answer.astype(np.float64)
    length = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / length if length > 0 else -1.0
