"""The health probe, with a server whose dependency becomes unhealthy."""

from __future__ import annotations

import asyncio
import sys

import pytest

from imagesearch_services.common.probe import main, probe
from imagesearch_services.common.server import LIVENESS
from tests.ports import free_port
from tests.unit.common.test_server import NAME, Dependency, running


async def status(target: str, service: str = "") -> str:
    return await asyncio.to_thread(probe, target, service, 5.0)


async def reaches(target: str, service: str, expected: str) -> None:
    async with asyncio.timeout(10):
        while await status(target, service) != expected:  # noqa: ASYNC110  # polls another process
            await asyncio.sleep(0.01)


async def test_the_probe_returns_the_status_of_the_server_and_of_each_service() -> None:
    dependency = Dependency()
    async with running(dependency) as (target, _):
        for service in ("", NAME):
            await reaches(target, service, "SERVING")
        dependency.is_healthy = False
        for service in ("", NAME):
            await reaches(target, service, "NOT_SERVING")


async def test_liveness_is_serving_while_a_dependency_is_unhealthy() -> None:
    dependency = Dependency()
    dependency.is_healthy = False
    async with running(dependency) as (target, _):
        await reaches(target, NAME, "NOT_SERVING")
        assert await status(target, LIVENESS) == "SERVING"


async def test_an_unknown_service_is_not_found() -> None:
    async with running(Dependency()) as (target, _):
        assert await status(target, "nobody") == "NOT_FOUND"


async def test_the_exit_status_is_0_only_if_the_server_is_serving(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(Dependency()) as (target, _):
        await reaches(target, "", "SERVING")
        monkeypatch.setattr(sys, "argv", ["probe", target])
        assert await asyncio.to_thread(main) == 0
    monkeypatch.setattr(sys, "argv", ["probe", f"127.0.0.1:{free_port()}", "--timeout-s", "5"])
    assert await asyncio.to_thread(main) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.isupper()] == ["SERVING", "UNAVAILABLE"]
