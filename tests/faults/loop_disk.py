"""A small ext4 disk in a file, whose power can be cut: what was not synced is lost.

It takes root and loop devices. `unsupported()` says what is missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

EXT4_IOC_SHUTDOWN = 0x8004587D
"""ioctl of ext4 that stops the file system at once (fs/ext4/ext4.h)."""

NOLOGFLUSH = 2
"""Flag of the ioctl: not even the journal is written, as in a power loss."""


class LoopDisk:
    """A mounted ext4 file system. `cut_power` and `mount` simulate a machine that restarts."""

    def __init__(self, folder: Path, size_mib: int) -> None:
        """Create a disk in an image file and mount it; `folder` holds both."""
        self._image = folder / "disk.img"
        self.path = folder / "disk"
        """Folder at which the disk is mounted."""
        self.path.mkdir(exist_ok=True)
        with self._image.open("wb") as image:
            image.truncate(size_mib << 20)
        _run("mkfs.ext4", "-q", "-m", "0", str(self._image))
        self.mount()

    def mount(self) -> None:
        """Mount the disk; the journal is replayed."""
        _run("mount", "-o", "loop", str(self._image), str(self.path))

    def unmount(self) -> None:
        """Unmount the disk. No process may use it."""
        _run("umount", str(self.path))

    def cut_power(self) -> None:
        """Stop the disk: nothing that was not synced before reaches it. Reads may still succeed."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))
        finally:
            os.close(descriptor)

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.path).free

    def fill(self) -> Path:
        """Occupy all free space with a file, which is returned."""
        filler = self.path / "filler"
        with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            for block in (1 << 20, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(block))
        return filler


@contextlib.contextmanager
def loop_disk(size_mib: int = 512) -> Iterator[LoopDisk]:
    """Create a disk, and unmount and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="loop-disk-"))
    disk = LoopDisk(folder, size_mib)
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk.path)], check=False, capture_output=True)
        shutil.rmtree(folder)


@functools.cache
def unsupported() -> str:
    """Return why this machine can't cut the power of a disk; "" if it can."""
    if os.geteuid() != 0:
        return "needs root, to mount a loop device"
    try:
        with loop_disk(16) as disk:
            disk.cut_power()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"needs loop devices and ext4: {error}"
    return ""


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
