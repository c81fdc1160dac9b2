"""Shared memory of killed Triton servers is removed, that of running ones is kept."""

from __future__ import annotations

from pathlib import Path

from imagesearch_services.runner.shared_memory import remove_stale_regions


def test_only_regions_without_a_process_are_removed(tmp_path: Path) -> None:
    shared_memory, processes = tmp_path / "shm", tmp_path / "proc"
    shared_memory.mkdir()
    for name in (
        "imagesearch_triton_111_aaa",
        "imagesearch_triton_222_bbb",
        "imagesearch_triton_333_ccc",
        "of_another_program",
    ):
        (shared_memory / name).touch()
    for pid, command_line in (
        ("1", b"init\0"),
        ("22", b"tritonserver\0--backend-config=python,name=imagesearch_triton_222_\0"),
        ("33", b"stub\0imagesearch_triton_333_ccc\0"),
    ):
        (processes / pid).mkdir(parents=True)
        (processes / pid / "cmdline").write_bytes(command_line)
    assert remove_stale_regions(shared_memory, processes) == 1
    assert sorted(region.name for region in shared_memory.iterdir()) == [
        "imagesearch_triton_222_bbb",
        "imagesearch_triton_333_ccc",
        "of_another_program",
    ]
