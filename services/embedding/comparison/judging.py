"""Steps of a comparison that run in threads: decode, prepare model inputs, measure, name edits."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from imagesearch_services.common.types import Box, PictureInfo
from imagesearch_services.embedding.comparison.alignment import Aligned
from imagesearch_services.embedding.comparison.displacement import displacement_px
from imagesearch_services.embedding.comparison.edit import Edit
from imagesearch_services.embedding.comparison.edits import Motion, likely_edits
from imagesearch_services.embedding.comparison.measures import hash_measures, pixel_measures, ssim
from imagesearch_services.embedding.comparison.view import View
from imagesearch_services.embedding.features.geometric_check import Matrix
from imagesearch_services.embedding.inference.background import Background
from imagesearch_services.embedding.pictures.picture import Picture
from imagesearch_services.embedding.pictures.preprocess import InputSpec, preprocess

WORKING_SIDE_PX = 640
"""Maximum long side of the compared pictures, in pixels; smaller pictures are not enlarged."""

Inputs = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ComparedPicture:
    """A decoded picture with its local features."""

    info: PictureInfo
    view: View
    picture: Picture
    """The pixels at working size."""

    def inputs(self, spec: InputSpec) -> Inputs:
        """Return the model's input for the whole picture, [1, height, width, 3]."""
        picture = self.picture
        return preprocess(picture, [Box(0, 0, picture.width, picture.height)], spec)


@dataclass(frozen=True, slots=True)
class Vectors:
    """Unit-length embeddings of the first picture and the second, float32 [2, dimensions]."""

    copy: Floats
    """Embeddings by the copy descriptor."""
    semantic: Floats | None
    """Embeddings by the semantic model; None if it is not served."""
    aligned_copy: Floats | None
    """Embeddings of the overlap by the copy descriptor; None if the pictures are not aligned."""


def max_reduction(width: int, height: int) -> float:
    """Return the maximum factor by which decoding may divide the sides of a picture."""
    return max(width, height) / WORKING_SIDE_PX


def read_picture(info: PictureInfo, decoded: Picture) -> ComparedPicture:
    """Extract the local features of a decoded picture."""
    factor = min(1.0, WORKING_SIDE_PX / max(decoded.image.size))
    size = (
        max(1, round(decoded.image.width * factor)),
        max(1, round(decoded.image.height * factor)),
    )
    pixels = np.asarray(decoded.image)
    if size != decoded.image.size:
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    picture = Picture(Image.fromarray(pixels), decoded.width, decoded.height)
    return ComparedPicture(info, View.of(pixels), picture)


def whole_inputs(first: ComparedPicture, second: ComparedPicture, spec: InputSpec) -> Inputs:
    """Return the model's inputs for both whole pictures, [2, height, width, 3]."""
    return np.concatenate([first.inputs(spec), second.inputs(spec)])


def overlap_inputs(aligned: Aligned, spec: InputSpec) -> Inputs:
    """Return the model's inputs for the overlap in both pictures, [2, height, width, 3]."""
    inputs = []
    for pixels in (aligned.overlap.first, aligned.overlap.second):
        image = Image.fromarray(pixels)
        picture = Picture(image, image.width, image.height)
        inputs.append(preprocess(picture, [Box(0, 0, image.width, image.height)], spec))
    return np.concatenate(inputs)


def judge(
    first: ComparedPicture,
    second: ComparedPicture,
    aligned: Aligned | None,
    vectors: Vectors,
    background: Background | None,
) -> tuple[dict[str, float], list[Edit]]:
    """Return all measures of two pictures by name, and the likely edits between them."""
    measures = pixel_measures(first.view.pixels, second.view.pixels)
    measures |= hash_measures(first.view.pixels, second.view.pixels)
    measures |= embedding_measures(vectors, background)
    measures |= alignment_measures(first, second, aligned)
    if aligned is None or not aligned.is_credible:
        return measures, []
    motion = Motion.of(_in_file_pixels(first, second, aligned.matrix), _size(first))
    measures |= {
        "rotation_degrees": motion.rotation_degrees,
        "scale": motion.scale,
        "aligned_ssim": ssim(aligned.overlap.first, aligned.overlap.second, aligned.overlap.mask),
    }
    return measures, likely_edits(first.view, second.view, aligned, motion)


def embedding_measures(vectors: Vectors, background: Background | None) -> dict[str, float]:
    """Return the similarities of the embeddings, by name."""
    cosine, closeness = _closeness(vectors.copy, background)
    measures = {"copy_similarity": cosine, "copy_closeness": closeness}
    if vectors.semantic is not None:
        measures["semantic_similarity"] = float(vectors.semantic[0] @ vectors.semantic[1])
    if vectors.aligned_copy is not None:
        _, measures["aligned_copy_closeness"] = _closeness(vectors.aligned_copy, background)
    return measures


def alignment_measures(
    first: ComparedPicture, second: ComparedPicture, aligned: Aligned | None
) -> dict[str, float]:
    """Return the measures of how well the pixels of aligned pictures agree, by name."""
    if aligned is None:
        return {"inlier_count": 0.0}
    displacement = (
        displacement_px(first.view, second.view, aligned) if aligned.is_credible else None
    )
    return {
        **({} if displacement is None else {"displacement_px": displacement}),
        "inlier_count": float(aligned.inlier_count),
        "agreement": aligned.agreement,
        "contrast_share": aligned.contrast_share,
        "shown_of_a": aligned.shown_of_first,
        "shown_of_b": aligned.shown_of_second,
        "bend": aligned.bend,
    }


def _closeness(pair: Floats, background: Background | None) -> tuple[float, float]:
    """Return the cosine of two embeddings, and their closeness.

    Closeness is the cosine normalized by the larger of the two background similarities, so that
    the order of the pictures makes no difference.
    """
    cosine = float(np.clip(pair[0] @ pair[1], -1.0, 1.0))
    chance = float(background.similarities(pair).max()) if background is not None else 0.0
    return cosine, (cosine - chance) / (1 - chance)


def _size(compared: ComparedPicture) -> tuple[int, int]:
    return compared.picture.width, compared.picture.height


def _in_file_pixels(first: ComparedPicture, second: ComparedPicture, matrix: Matrix) -> Matrix:
    """Convert a homography between views to a homography between pixels of the files."""
    to_view = np.diag([first.picture.x_scale, first.picture.y_scale, 1.0])
    from_view = np.diag([1 / second.picture.x_scale, 1 / second.picture.y_scale, 1.0])
    return from_view @ matrix @ to_view
