"""The container files, checked without a container engine."""

from __future__ import annotations

import ast
import fnmatch
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.unit.deploy.manifests import BIN, DEPLOY, ROOT, SERVICES, container_file, read_settings

FILES = sorted(path.stem for path in (DEPLOY / "containers").glob("*.Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]


def test_each_service_and_the_models_have_a_container_file() -> None:
    assert sorted([*SERVICES, "models"]) == FILES


@pytest.mark.parametrize("name", FILES)
def test_hadolint_reports_no_problem(name: str) -> None:
    done = subprocess.run(
        [BIN / "hadolint", DEPLOY / "containers" / f"{name}.Dockerfile"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", FILES)
def test_every_stage_starts_from_the_same_pinned_slim_python(name: str) -> None:
    images = {stage.image for stage in container_file(name)}
    assert images == {stage.image for stage in container_file("gateway")}
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", images.pop())


@pytest.mark.parametrize("name", FILES)
def test_the_image_runs_as_a_numeric_non_root_user_and_stops_on_sigterm(name: str) -> None:
    final = container_file(name)[-1]
    (user,) = final.arguments("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert final.arguments("STOPSIGNAL") == ["SIGTERM"]


@pytest.mark.parametrize("name", FILES)
def test_labels_have_title_description_and_license(name: str) -> None:
    (labels,) = container_file(name)[-1].arguments("LABEL")
    found = re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]+)"', labels)
    assert dict(found).keys() == {"title", "description", "licenses"}
    assert f"imagesearch {name}" == dict(found)["title"]


@pytest.mark.parametrize("name", FILES)
def test_copied_files_exist_and_are_in_the_build_context(name: str) -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in lines if line.startswith("!")]
    for stage in container_file(name):
        for sources, _ in stage.copied_from_context:
            for source in sources:
                assert list(ROOT.glob(source)) or source == "LICENSE*", source
                parents = [Path(source), *Path(source).parents]
                assert any(
                    fnmatch.fnmatch(str(part), pattern) for part in parents for pattern in allowed
                ), source


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_image_installs_its_own_extra_and_no_weights(name: str) -> None:
    install, final = container_file(name)[1:]
    (command,) = install.arguments("RUN")
    assert re.findall(r"whl\)\[([\w,]+)\]", command) == [name]
    assert name in EXTRAS
    # The final stage has only the installed packages; the wheel contains no weights (see below).
    assert not final.copied_from_context


@pytest.mark.parametrize("name", SERVICES)
def test_image_probe_and_settings_use_the_same_ports(name: str) -> None:
    final = container_file(name)[-1]
    server = read_settings(name, {}).server
    configured = read_settings(name, final.environment).server
    assert configured.port == server.port
    assert configured.host == "0.0.0.0"  # noqa: S104  # inside a container
    assert final.arguments("EXPOSE") == [f"{configured.port} {configured.metrics_port}"]
    (health,) = final.arguments("HEALTHCHECK")
    probe = json.loads(health[health.index("[") :])
    assert probe == [
        "python", "-m", "imagesearch_services.common.probe", f"127.0.0.1:{server.port}",
    ]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_the_program_of_the_image_exists(name: str) -> None:
    (entrypoint,) = container_file(name)[-1].arguments("ENTRYPOINT")
    assert json.loads(entrypoint) == ["python", "-m", f"imagesearch_services.{name}"]
    assert (ROOT / "services" / name / "__main__.py").exists()


def test_the_models_image_runs_with_only_the_files_that_it_copies(tmp_path: Path) -> None:
    image = container_file("models")[-1]
    for sources, target in image.copied_from_context:
        for source in (path for pattern in sources for path in ROOT.glob(pattern)):
            put(source, tmp_path / target, into=target.endswith("/"))
    prefix = image.arguments("WORKDIR")[0]
    variables = {
        name: value.replace(prefix, str(tmp_path)) for name, value in image.environment.items()
    }
    interpreter = Path(os.path.realpath(sys.executable))  # outside of the virtual environment
    done = subprocess.run(
        [interpreter, "-s", "-m", "imagesearch_services.models", "list"],
        env=variables, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "model sscd@1" in done.stdout


def put(source: Path, target: Path, *, into: bool) -> None:
    """Copy a file, or the contents of a folder, as the instruction COPY does."""
    ignore = shutil.ignore_patterns("__pycache__", "*.onnx")
    if source.is_dir():
        shutil.copytree(source, target, ignore=ignore, dirs_exist_ok=True)
        return
    target = target / source.name if into else target
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


@pytest.mark.parametrize("name", SERVICES)
def test_an_extra_includes_every_package_that_its_service_imports(name: str) -> None:
    installed = importlib.metadata.packages_distributions()
    provided = {
        distribution.lower().replace("_", "-")
        for distribution in requirements(f"imagesearch[{name}]")
    }
    missing = {
        module
        for folder in (name, "common")
        for path in (ROOT / "services" / folder).rglob("*.py")
        for module in imports(path)
        if module not in sys.stdlib_module_names
        and module not in {"imagesearch", "imagesearch_services"}
        and not provided & {found.lower().replace("_", "-") for found in installed.get(module, ())}
        and not namespace_of(module, provided)
    }
    assert not missing


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_be_imported_with_only_the_packages_of_its_extra(name: str) -> None:
    provided = {canonical(found) for found in closure(f"imagesearch[{name}]")}
    others = [
        module
        for module, distributions in importlib.metadata.packages_distributions().items()
        if not provided & set(map(canonical, distributions)) and not module.startswith("_")
    ]
    # With None in sys.modules, an import fails as if the module were not installed.
    program = (
        "import json, sys; sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])));"
        f"import imagesearch_services.{name}.__main__"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(others)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def closure(requirement: str) -> Iterator[str]:
    """Yield all distributions that a requirement installs, from the metadata of installed ones."""
    pending, seen = [requirement, "imagesearch"], set[str]()
    while pending:
        parsed = Requirement(pending.pop())
        for extra in ("", *parsed.extras):
            key = f"{canonical(parsed.name)}[{extra}]"
            if key in seen:
                continue
            seen.add(key)
            if canonical(parsed.name) == "imagesearch":
                pending += EXTRAS[extra] if extra else PROJECT["project"]["dependencies"]
                yield "imagesearch"
                continue
            yield parsed.name
            for line in importlib.metadata.requires(parsed.name) or ():
                marker = Requirement(line).marker
                if marker is None or marker.evaluate({"extra": extra}):
                    pending.append(line)


def canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def requirements(requirement: str) -> Iterator[str]:
    """Yield the distributions that pyproject.toml lists for a requirement, including its extras."""
    parsed = Requirement(requirement)
    if parsed.name != "imagesearch":
        yield parsed.name
        return
    for needed in (
        *PROJECT["project"]["dependencies"],
        *(needed for extra in parsed.extras for needed in EXTRAS[extra]),
    ):
        yield from requirements(needed)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def namespace_of(module: str, distributions: set[str]) -> bool:
    """Return whether a distribution contributes to a namespace package such as `google`."""
    return any(
        file.parts[0] == module
        for name in distributions
        for file in importlib.metadata.files(name) or ()
    )


def test_the_wheel_contains_every_package_and_data_file_of_the_services() -> None:
    assert not [
        file
        for file in tracked_files()
        if not in_wheel(file) and not makes_artefacts(file) and file.name != "README.md"
    ]
    weights = {".onnx", ".pt", ".safetensors"}
    assert not [file for file in tracked_files() if file.suffix in weights]


def test_the_wheel_and_the_build_context_exclude_commands_that_make_artefacts() -> None:
    commands = [file for file in tracked_files() if makes_artefacts(file)]
    assert commands
    assert not [file for file in commands if in_wheel(file)]
    assert "services/models/*/**" in (ROOT / ".dockerignore").read_text().splitlines()


def test_no_service_imports_a_command_that_makes_artefacts() -> None:
    folders = {file.parts[2] for file in tracked_files() if makes_artefacts(file)}
    names = {f"imagesearch_services.models.{folder}" for folder in folders}
    for file in tracked_files():
        if file.suffix == ".py" and not makes_artefacts(file):
            lines = (ROOT / file).read_text().splitlines()
            importing = [line for line in lines if line.lstrip().startswith(("from ", "import "))]
            assert not [line for line in importing if any(name in line for name in names)], file


def test_services_and_clients_do_not_import_the_tests() -> None:
    importers = [
        file
        for file in tracked_files()
        if file.suffix == ".py" and "tests" in set(imports(ROOT / file))
    ]
    assert not importers


def tracked_files() -> list[Path]:
    """Return the committed files of all packages, relative to the root."""
    homes = PROJECT["tool"]["setuptools"]["package-dir"].values()
    listed = subprocess.run(
        ["git", "ls-files", *homes], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    return [Path(name) for name in listed]


def makes_artefacts(file: Path) -> bool:
    """Return whether the file is in a subfolder of services/models/."""
    home = Path("services/models")
    return file.is_relative_to(home) and file.parent != home


def in_wheel(file: Path) -> bool:
    """Return whether pyproject.toml includes the file in the wheel."""
    tool = PROJECT["tool"]["setuptools"]
    homes = {path: name for name, path in tool["package-dir"].items()}
    home = next(home for home in homes if file.is_relative_to(home))
    package = ".".join([homes[home], *file.relative_to(home).parent.parts])
    if file.suffix == ".py":
        return package in tool["packages"]
    return any(
        fnmatch.fnmatch(
            f"{package}.{file.name}"[len(owner) + 1 :],
            pattern.replace("**/", "*").replace("/", "."),
        )
        for owner, patterns in tool["package-data"].items()
        if package == owner or package.startswith(f"{owner}.")
        for pattern in patterns
    )
