"""Generate the committed Python stubs from the protos, or check that they are fresh.

    python protos/generate.py            # write clients/python/imagesearch/**/*_pb2*.py[i]
    python protos/generate.py --check    # exit 1 if what is committed is stale
    python protos/generate.py --descriptor-set FILE   # everything as one image, for buf

google/rpc and google/protobuf come from installed packages, never from a copy.
"""

from __future__ import annotations

import argparse
import filecmp
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import google.rpc

PROTOS = Path(__file__).resolve().parent
STUBS = PROTOS.parent / "clients" / "python" / "imagesearch"
GOOGLEAPIS = Path(next(iter(google.rpc.__path__))).parent.parent
"""Folder of googleapis-common-protos, where `google/rpc/*.proto` lie."""

SCRIPTS = Path(sys.executable).parent
"""Where this environment's commands lie; protoc would look on the PATH, which may lack them."""

PLUGINS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc")

TOOL_VERSIONS = {"grpcio-tools": "1.81.1", "mypy-protobuf": "5.1.0"}
"""Other versions write other stubs, and `--check` would complain on some machines only."""


def assert_tool_versions() -> None:
    for package, wanted in TOOL_VERSIONS.items():
        installed = importlib.metadata.version(package)
        if installed != wanted:
            sys.exit(f"{package} {installed} is installed, stubs are made with {wanted}")


def proto_files() -> list[str]:
    return sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("imagesearch/**/*.proto"))


def protoc(arguments: Sequence[str], files: Sequence[str]) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", f"-I{GOOGLEAPIS}"]
    command += [f"--plugin={SCRIPTS / plugin}" for plugin in PLUGINS]
    subprocess.run([*command, *arguments, *files], check=True)


def generate(folder: Path) -> None:
    """Write all stubs under `folder`, which then holds the package `imagesearch`."""
    files = proto_files()
    services = [file for file in files if file.endswith("_service.proto")]
    protoc([f"--python_out={folder}", f"--mypy_out=quiet:{folder}"], files)
    protoc([f"--grpc_python_out={folder}", f"--mypy_grpc_out=quiet:{folder}"], services)


def stubs(folder: Path) -> Iterator[Path]:
    for pattern in ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi"):
        yield from folder.rglob(pattern)


def stale_stubs(fresh: Path) -> list[str]:
    """Paths that differ between the committed stubs and the fresh ones, or are in one only."""
    made = {path.relative_to(fresh): path for path in stubs(fresh)}
    kept = {path.relative_to(STUBS): path for path in stubs(STUBS)}
    return sorted(
        str(name)
        for name in made.keys() | kept.keys()
        if name not in made
        or name not in kept
        or not filecmp.cmp(made[name], kept[name], shallow=False)
    )


def replace_stubs(fresh: Path) -> None:
    for path in list(stubs(STUBS)):
        path.unlink()
    for path in stubs(fresh):
        target = STUBS / path.relative_to(fresh)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="only say whether stubs are stale")
    parser.add_argument("--descriptor-set", type=Path, metavar="FILE", help="write an image")
    arguments = parser.parse_args()
    if arguments.descriptor_set:
        image = f"--descriptor_set_out={arguments.descriptor_set}"
        protoc([image, "--include_imports", "--include_source_info"], proto_files())
        return
    assert_tool_versions()
    with tempfile.TemporaryDirectory() as temporary:
        generate(Path(temporary))
        fresh = Path(temporary) / "imagesearch"
        if not arguments.check:
            replace_stubs(fresh)
        elif stale := stale_stubs(fresh):
            sys.exit("stale stubs, run `make protos`:\n  " + "\n  ".join(stale))


if __name__ == "__main__":
    main()
