"""The compose files, in every combination of layers."""

from __future__ import annotations

import itertools
import re

import compose_spec
import pytest
import yaml

from tests.unit.deploy.manifests import (
    DEPLOY,
    SERVICES,
    Document,
    compose,
    container_file,
    read_settings,
)

LAYERS = sorted(path.name.split(".")[1] for path in DEPLOY.glob("compose.*.yaml"))
STACKS = [
    stack for length in range(len(LAYERS) + 1) for stack in itertools.combinations(LAYERS, length)
]
OURS = (*SERVICES, "models")


def started(file: Document) -> dict[str, Document]:
    return {name: item for name, item in file["services"].items() if not item.get("profiles")}


def test_there_are_layers_for_a_gpu_for_the_embedded_engine_and_for_a_bucket() -> None:
    assert LAYERS == ["embedded", "gpu", "s3"]


def test_thumbnails_are_stored_in_the_volume_of_the_catalog_or_in_a_bucket() -> None:
    catalog = compose()["services"]["catalog"]
    store = read_settings("catalog", catalog["environment"]).blob_store
    (volume,) = catalog["volumes"]
    assert store.startswith(f"file://{volume.removeprefix('catalog:')}/")
    catalog = compose("s3")["services"]["catalog"]
    assert read_settings("catalog", catalog["environment"]).blob_store.startswith("s3://")
    assert "public" in catalog["networks"]


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_the_file_conforms_to_the_compose_specification(stack: tuple[str, ...]) -> None:
    compose_spec.PyCompose.from_yaml(yaml.safe_dump(compose(*stack))).validate()


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_services_read_every_variable_that_is_set(stack: tuple[str, ...]) -> None:
    for name in SERVICES:
        variables = {
            key: value or ""
            for key, value in compose(*stack)["services"][name]["environment"].items()
        }
        read_settings(name, container_file(name)[-1].environment | variables)


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_targets_are_the_ports_of_started_services(stack: tuple[str, ...]) -> None:
    services = started(compose(*stack))
    ports = {name: read_settings(name, {}).server.port for name in SERVICES}
    ports |= {"triton": 8001, "qdrant": 6333}
    for name in SERVICES:
        for key, value in services[name]["environment"].items():
            if key.endswith(("_TARGET", "_URL")) and value:
                host, port = value.split("/")[-1].split(":")
                assert host in services, key
                assert int(port) == ports[host], key


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_each_service_starts_after_its_dependencies_are_healthy(
    stack: tuple[str, ...],
) -> None:
    services = started(compose(*stack))
    order = {
        "gateway": {"embedding", "catalog"},
        "embedding": {"triton"},
        "catalog": {"qdrant"} & services.keys(),
        "triton": {"models"},
    }
    for name, needed in order.items():
        depends_on = services[name].get("depends_on", {})
        required = {key for key, entry in depends_on.items() if entry.get("required", True)}
        assert required == needed
        for key in needed:
            condition = "service_completed_successfully" if key == "models" else "service_healthy"
            assert depends_on[key]["condition"] == condition
            if key in {"triton", "qdrant"}:  # images built here contain their health check
                assert services[key]["healthcheck"]["test"]


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_only_the_gateway_is_published_and_only_to_this_machine(stack: tuple[str, ...]) -> None:
    services = started(compose(*stack))
    assert [name for name, item in services.items() if item.get("ports")] == ["gateway"]
    (port,) = services["gateway"]["ports"]
    gateway = read_settings("gateway", {}).server.port
    assert port == f"127.0.0.1:{gateway}:{gateway}"


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_every_container_has_limits_a_read_only_root_and_no_privileges(
    stack: tuple[str, ...],
) -> None:
    for item in started(compose(*stack)).values():
        limits = item["deploy"]["resources"]["limits"]
        assert limits["cpus"]
        assert limits["memory"]
        assert item["read_only"]
        assert item["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in item["security_opt"]
        assert re.fullmatch(r"[\w./-]+:v?\d[\w.-]+", item["image"])


def test_volumes_are_mounted_at_the_data_folders_of_the_images() -> None:
    services = compose()["services"]
    catalog = container_file("catalog")[-1].environment["IMAGESEARCH_CATALOG_DATA_DIR"]
    models = container_file("models")[-1].environment["IMAGESEARCH_MODELS_DIR"]
    assert services["catalog"]["volumes"] == [f"catalog:{catalog}"]
    assert services["models"]["volumes"] == [f"models:{models}"]
    assert services["triton"]["volumes"] == [f"models:{models}:ro"]
    assert f"--model-repository={models}/repository" in services["triton"]["command"]


def test_images_are_built_from_the_container_files() -> None:
    for name in OURS:
        item = compose()["services"][name]
        assert item["image"].startswith(f"imagesearch/{name}:")
        assert item["build"] == {
            "context": "..", "dockerfile": f"deploy/containers/{name}.Dockerfile",
        }  # fmt: skip
