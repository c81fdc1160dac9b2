"""Generate the committed Python stubs from the protos, or check that they are up to date.

    python protos/generate.py            # write clients/python/imagesearch/**/*_pb2*.py[i]
    python protos/generate.py --check    # exit with status 1 if committed stubs are stale
    python protos/generate.py --descriptor-set FILE   # write all protos as one image, for buf

google/api, google/rpc and google/protobuf are read from installed packages; the repository has no
copies.
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
BUNDLES = (PROTOS / "public", PROTOS / "internal")
"""Import folders. The first is complete without the second: clients need nothing else."""

STUBS = PROTOS.parent / "clients" / "python" / "imagesearch"
GOOGLEAPIS = Path(next(iter(google.rpc.__path__))).parent.parent
"""Folder of googleapis-common-protos, which contains `google/api` and `google/rpc`."""

SCRIPTS = Path(sys.executable).parent
"""Folder of the commands of this Python environment, which need not be on the PATH."""

PLUGINS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc")

TOOL_VERSIONS = {"grpcio-tools": "1.81.1", "mypy-protobuf": "5.1.0"}
"""Required versions: other versions generate different stubs, which `--check` would reject."""


def assert_tool_versions() -> None:
    """Exit with an error if a code generator has another version than `TOOL_VERSIONS`."""
    for package, required in TOOL_VERSIONS.items():
        installed = importlib.metadata.version(package)
        if installed != required:
            sys.exit(f"{package} {installed} is installed, but stubs require {required}")


def proto_files() -> list[str]:
    """Return the import paths of all protos, for example `imagesearch/type/v1/tag.proto`."""
    return sorted(
        str(path.relative_to(bundle)) for bundle in BUNDLES for path in bundle.rglob("*.proto")
    )


def protoc(arguments: Sequence[str], files: Sequence[str]) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc"]
    command += [f"-I{folder}" for folder in (*BUNDLES, GOOGLEAPIS)]
    command += [f"--plugin={SCRIPTS / plugin}" for plugin in PLUGINS]
    subprocess.run([*command, *arguments, *files], check=True)


def generate(folder: Path) -> None:
    """Write all stubs to `folder`, as the package `imagesearch`."""
    files = proto_files()
    services = [file for file in files if file.endswith("_service.proto")]
    protoc([f"--python_out={folder}", f"--mypy_out=quiet:{folder}"], files)
    protoc([f"--grpc_python_out={folder}", f"--mypy_grpc_out=quiet:{folder}"], services)


def stubs(folder: Path) -> Iterator[Path]:
    for pattern in ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi"):
        yield from folder.rglob(pattern)


def stale_stubs(fresh: Path) -> list[str]:
    """Return the relative paths of committed stubs that are missing, surplus or different."""
    generated = {path.relative_to(fresh): path for path in stubs(fresh)}
    committed = {path.relative_to(STUBS): path for path in stubs(STUBS)}
    return sorted(
        str(name)
        for name in generated.keys() | committed.keys()
        if name not in generated
        or name not in committed
        or not filecmp.cmp(generated[name], committed[name], shallow=False)
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
    parser.add_argument("--check", action="store_true", help="fail if stubs are stale")
    parser.add_argument(
        "--descriptor-set", type=Path, metavar="FILE", help="write all protos as one image"
    )
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
