"""Reads descriptions of models from their configuration on Triton."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.types import LibraryType, ModelVersion
from imagesearch_services.embedding.inference.probe import decode_answer
from imagesearch_services.embedding.inference.triton import ModelConfig, Tensor
from imagesearch_services.embedding.inference.windows import Windows
from imagesearch_services.embedding.pictures.preprocess import InputSpec, Resize
from imagesearch_services.embedding.subjects.labels import Labels


class ModelDescriptionError(Exception):
    """A model's configuration is incomplete or inconsistent."""


@dataclass(frozen=True, slots=True)
class Joined:
    """Another model whose embedding of the same crop is joined to a model's own embedding."""

    space: str
    """Vector space of the other model."""
    weight: float
    """Weight of the other model's cosine; the cosine of the model itself has weight 1."""


@dataclass(frozen=True, slots=True)
class Model:
    """A version of a model that embeds pictures or describes their content."""

    name: str
    version: str
    role: str
    """Role of the model, one of `common.roles`."""
    library_types: tuple[LibraryType, ...]
    """Library types for which new libraries use the model."""
    input: InputSpec
    input_name: str
    output_name: str
    dimensions: int
    """Components of an embedding; 0 for a model that does not embed."""
    outputs: Mapping[str, tuple[int, ...]]
    """Shape of each output without the batch dimension; that of `output_name` comes first."""
    max_batch_size: int
    probe: npt.NDArray[np.float32] = field(repr=False)
    """Known answer to the probe picture, unit length, see `probe_answer`."""
    probe_min_cosine: float
    """Minimum cosine of the model's answer and the known answer."""
    crop_margin: float = 0.0
    """Margin that is kept around a region, as a share of the region's sides."""
    joined: Joined | None = None
    """The joined model; None if the model's embeddings are used alone."""
    labels: Labels | None = field(default=None, repr=False)
    """Names of the values in a product model's outputs; None for other models."""
    stride: int = 0
    """Input pixels per cell of a parser's maps, along each side; 0 for other models."""
    windows: Windows | None = None
    """Windows that a dense model describes in one pass; None for other models."""

    @property
    def model_version(self) -> ModelVersion:
        return ModelVersion(self.role, self.name, self.version)

    @property
    def space(self) -> str:
        """Vector space that the model embeds into; empty for a model that does not embed."""
        return f"{self.name}@{self.version}" if self.dimensions else ""

    @property
    def row_length(self) -> int:
        """Number of values in all outputs for one region."""
        return sum(map(math.prod, self.outputs.values()))

    def outputs_in(self, rows: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """Split rows into outputs by name, [regions, row length] → [regions, *shape] of each."""
        found, start = {}, 0
        for name, shape in self.outputs.items():
            end = start + math.prod(shape)
            found[name] = rows[:, start:end].reshape(len(rows), *shape)
            start = end
        return found


def read_model(config: ModelConfig) -> Model:
    """Read a model from its configuration.

    Raises:
        ModelDescriptionError: a parameter is missing or invalid, or contradicts the tensors.
    """
    parameters = config.parameters
    try:
        model = Model(
            name=config.name,
            version=config.version,
            role=parameters["role"],
            library_types=_library_types(parameters["library_types"]),
            input=InputSpec(
                int(parameters["input_width"]),
                int(parameters["input_height"]),
                Resize(parameters["resize"]),
            ),
            input_name=parameters["input_name"],
            output_name=parameters["output_name"],
            dimensions=int(parameters["dimensions"]),
            outputs=_shapes(config.outputs, parameters["output_name"]),
            max_batch_size=max(1, config.max_batch_size),
            probe=decode_answer(parameters["probe"]),
            probe_min_cosine=float(parameters["probe_min_cosine"]),
            crop_margin=float(parameters.get("crop_margin", "0")),
            joined=_joined(parameters),
            labels=Labels.from_parameters(parameters) if "categories" in parameters else None,
            stride=int(parameters["stride"]) if parameters.keys() & {"maps", "stride"} else 0,
            windows=Windows.from_parameters(parameters) if "windows" in parameters else None,
        )
    except KeyError as error:
        raise ModelDescriptionError(f"the parameter {error} is missing") from error
    except ValueError as error:
        raise ModelDescriptionError(str(error)) from error
    layout = parameters.get("input_layout", "missing")
    if layout != "NHWC":
        raise ModelDescriptionError(f"input_layout is {layout}; must be NHWC")
    _check_tensors(config, model)
    return model


def _library_types(text: str) -> tuple[LibraryType, ...]:
    """Read comma-separated names of library types; the text may be empty.

    Raises:
        ValueError: a name is unknown.
    """
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in LibraryType.__members__]
    if unknown:
        raise ValueError(f"unknown library types: {', '.join(unknown)}")
    return tuple(LibraryType[name] for name in names)


def _joined(parameters: Mapping[str, str]) -> Joined | None:
    if "joined_with" not in parameters:
        return None
    return Joined(parameters["joined_with"], float(parameters["joined_weight"]))


def _shapes(outputs: Mapping[str, Tensor], first: str) -> dict[str, tuple[int, ...]]:
    names = sorted(outputs, key=lambda name: name != first)
    return {name: outputs[name].dims for name in names}


def _check_tensors(config: ModelConfig, model: Model) -> None:
    pixels = Tensor("TYPE_UINT8", (model.input.height, model.input.width, 3))
    _check_tensor(config.inputs, model.input_name, pixels)
    output = config.outputs.get(model.output_name)
    shape = (model.dimensions,) if model.dimensions or output is None else output.dims
    _check_tensor(config.outputs, model.output_name, Tensor("TYPE_FP32", shape))


def _check_tensor(tensors: Mapping[str, Tensor], name: str, expected: Tensor) -> None:
    found = tensors.get(name)
    if (
        found is None
        or found.data_type != expected.data_type
        or len(found.dims) != len(expected.dims)
        or any(dim not in {-1, size} for dim, size in zip(found.dims, expected.dims, strict=True))
    ):
        raise ModelDescriptionError(f"tensor {name} is {found or 'missing'}; must be {expected}")
