"""The Kubernetes manifests, every variation as kustomize renders it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import kubernetes_validate  # type: ignore[import-untyped]
import pytest

from imagesearch_services.common.server import LIVENESS
from tests.unit.deploy.manifests import (
    DEPLOY,
    KUBERNETES,
    SERVICES,
    Document,
    compose,
    container_file,
    containers,
    environment,
    of_kind,
    pods,
    read_settings,
    rendered,
)

COMPONENTS = [*sorted(f"components/{path.name}" for path in KUBERNETES.glob("components/*"))]
OVERLAYS = [*sorted(f"overlays/{path.name}" for path in KUBERNETES.glob("overlays/*"))]
VARIATIONS = ["base", *COMPONENTS, "../envoy", *OVERLAYS]
SCHEMAS = ["1.30", "1.37"]
"""The oldest and the newest checked version of Kubernetes."""


@pytest.fixture(params=VARIATIONS)
def objects(request: pytest.FixtureRequest) -> list[Document]:
    return rendered(request.param)


@pytest.mark.parametrize("version", SCHEMAS)
def test_every_object_conforms_to_the_schema(objects: list[Document], version: str) -> None:
    for item in objects:
        kubernetes_validate.validate(item, version, strict=True)


def test_every_object_is_in_the_namespace(objects: list[Document]) -> None:
    for item in objects:
        if item["kind"] != "Namespace":
            assert item["metadata"].get("namespace") == "imagesearch", item["metadata"]["name"]


def test_every_pod_conforms_to_the_restricted_standard_with_a_read_only_root(
    objects: list[Document],
) -> None:
    (namespace,) = of_kind(objects, "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod in pods(objects).values():
        own = pod["spec"]["securityContext"]
        assert own["runAsNonRoot"]
        assert own["runAsUser"] > 0
        assert own["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["spec"]["automountServiceAccountToken"] is False
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_every_container_has_resource_requests_and_limits(objects: list[Document]) -> None:
    for pod in pods(objects).values():
        for container in containers(pod):
            for bound in ("requests", "limits"):
                assert {"cpu", "memory"} <= container["resources"][bound].keys()


def test_images_are_pinned_and_equal_those_of_compose(objects: list[Document]) -> None:
    known = {item["image"] for item in compose()["services"].values()}
    for name, pod in pods(objects).items():
        for container in containers(pod):
            image = container["image"]
            assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", image)
            assert image in known or name == "envoy", image


def test_services_read_every_variable_that_is_set(objects: list[Document]) -> None:
    for name in SERVICES:
        (container,) = pods(objects)[name]["spec"]["containers"]
        read_settings(name, container_file(name)[-1].environment | environment(container))


def test_pods_run_as_the_user_of_the_image(objects: list[Document]) -> None:
    for name in SERVICES:
        own = pods(objects)[name]["spec"]["securityContext"]
        (user,) = container_file(name)[-1].arguments("USER")
        assert f"{own['runAsUser']}:{own['runAsGroup']}" == user


def test_probes_use_the_port_and_the_health_names_of_the_service(
    objects: list[Document],
) -> None:
    for name, full_name in SERVICES.items():
        (container,) = pods(objects)[name]["spec"]["containers"]
        port = read_settings(name, {}).server.port
        assert container["readinessProbe"]["grpc"] == {"port": port, "service": full_name}
        # A restart would not repair a dependency of the service.
        for probe in ("startupProbe", "livenessProbe"):
            assert container[probe]["grpc"] == {"port": port, "service": LIVENESS}


def test_probes_and_services_use_ports_that_the_containers_open(objects: list[Document]) -> None:
    for pod in pods(objects).values():
        for container in containers(pod):
            for port in probe_ports(container):
                assert port in opened(container)
    for service in of_kind(objects, "Service").values():
        (pod,) = selected(objects, service["spec"]["selector"])
        (container,) = pod["spec"]["containers"]
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in opened(container)


def test_targets_are_names_and_ports_of_existing_services(objects: list[Document]) -> None:
    for _, host, port in calls(objects):
        service = of_kind(objects, "Service")[host]
        assert port in [item["port"] for item in service["spec"]["ports"]]


def test_services_with_load_balancing_callers_are_headless(objects: list[Document]) -> None:
    for name in SERVICES:
        (container,) = pods(objects)[name]["spec"]["containers"]
        for value in environment(container).values():
            if value.startswith("dns:///"):
                host = value.removeprefix("dns:///").split(":")[0]
                assert of_kind(objects, "Service")[host]["spec"]["clusterIP"] == "None"


def test_the_termination_grace_period_covers_a_graceful_stop(objects: list[Document]) -> None:
    for name in SERVICES:
        spec = pods(objects)[name]["spec"]
        server = read_settings(name, environment(spec["containers"][0])).server
        assert spec["terminationGracePeriodSeconds"] > server.drain_s + server.grace_s


def test_claimed_volumes_exist(objects: list[Document]) -> None:
    claims = of_kind(objects, "PersistentVolumeClaim")
    for pod in pods(objects).values():
        for volume in pod["spec"].get("volumes", ()):
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims


def test_triton_waits_for_verified_models_and_serves_them() -> None:
    spec = pods(rendered("base"))["triton"]["spec"]
    (verify,) = spec["initContainers"]
    models = container_file("models")[-1].environment["IMAGESEARCH_MODELS_DIR"]
    assert verify["args"][0] == "verify"
    assert f"--model-repository={models}/repository" in spec["containers"][0]["args"]


def test_the_embedded_catalog_is_a_single_pod_and_needs_no_qdrant_server() -> None:
    objects = rendered("components/embedded-catalog")
    catalog = of_kind(objects, "Deployment")["catalog"]["spec"]
    assert (catalog["replicas"], catalog["strategy"]["type"]) == (1, "Recreate")
    assert "qdrant" not in pods(objects)
    (container,) = catalog["template"]["spec"]["containers"]
    data_dir = container_file("catalog")[-1].environment["IMAGESEARCH_CATALOG_DATA_DIR"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in catalog["template"]["spec"]["volumes"]}
    assert "persistentVolumeClaim" in volumes[mounts[data_dir]]


def test_autoscalers_and_budgets_refer_to_existing_workloads() -> None:
    objects = rendered("overlays/production")
    for scaler in of_kind(objects, "HorizontalPodAutoscaler").values():
        workload = of_kind(objects, "Deployment")[scaler["spec"]["scaleTargetRef"]["name"]]
        assert "replicas" not in workload["spec"]
    for budget in of_kind(objects, "PodDisruptionBudget").values():
        assert len(selected(objects, budget["spec"]["selector"]["matchLabels"])) == 1


def test_network_policies_allow_exactly_the_calls_between_services() -> None:
    objects = rendered("overlays/production")
    expected = {(caller, host, port) for caller, host, port in calls(objects)}
    expected |= {("envoy", "gateway", 50051), ("qdrant", "qdrant", 6335)}
    out, into = set(), set()
    for policy in of_kind(objects, "NetworkPolicy").values():
        own = policy["spec"]["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/name")
        for rule in policy["spec"].get("egress", ()):
            out |= {(own, peer, port) for peer in peers(rule, "to") for port in ports(rule)}
        for rule in policy["spec"].get("ingress", ()):
            into |= {(peer, own, port) for peer in peers(rule, "from") for port in ports(rule)}
    assert out == expected
    # The port of the Gateway is open to the whole cluster.
    assert into == {call for call in expected if call[1] != "gateway"}


def test_the_catalog_may_connect_to_port_443_only_with_a_bucket() -> None:
    policies, bucket = "components/network-policies", "components/s3-thumbnails"
    assert 443 not in egress_ports(rendered(policies))
    assert 443 in egress_ports(rendered(policies, bucket))
    assert egress_ports(rendered(bucket)) == []


@pytest.mark.parametrize("folder", [*COMPONENTS, *OVERLAYS, "../envoy"])
def test_each_variation_has_a_readme_with_its_usage(folder: str) -> None:
    readme = (KUBERNETES / folder / "README.md").read_text()
    assert "```" in readme
    assert folder.removeprefix("../") in (KUBERNETES / "README.md").read_text() or (
        folder in (KUBERNETES / "README.md").read_text()
    )


def calls(objects: list[Document]) -> Iterator[tuple[str, str, int]]:
    """Yield the calls that settings define, as caller, host and port."""
    for name in SERVICES:
        (container,) = pods(objects)[name]["spec"]["containers"]
        for key, value in environment(container).items():
            if key.endswith(("_TARGET", "_URL")):
                host, port = value.split("/")[-1].split(":")
                yield name, host, int(port)
                if host == "qdrant":
                    yield name, host, read_settings(name, environment(container)).grpc_port


def selected(objects: list[Document], labels: dict[str, str]) -> list[Document]:
    return [
        pod for pod in pods(objects).values() if labels.items() <= pod["metadata"]["labels"].items()
    ]


def opened(container: Document) -> set[int | str]:
    return {port[key] for port in container.get("ports", ()) for key in ("name", "containerPort")}


def probe_ports(container: Document) -> Iterator[int | str]:
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        for handler in container.get(probe, {}).values():
            if isinstance(handler, dict):
                yield handler["port"]


def egress_ports(objects: list[Document]) -> list[int]:
    """Return the ports to which the policy of the Catalog allows connections."""
    policy = of_kind(objects, "NetworkPolicy").get("catalog", {"spec": {}})
    return [port for rule in policy["spec"].get("egress", ()) for port in ports(rule)]


def peers(rule: Document, key: str) -> Iterator[str]:
    for peer in rule.get(key, ()):
        labels = peer.get("podSelector", {}).get("matchLabels", {})
        if labels:
            yield labels["app.kubernetes.io/name"]


def ports(rule: Document) -> list[int]:
    return [port["port"] for port in rule.get("ports", ())]


def test_the_deployed_envoy_configuration_is_the_tested_one() -> None:
    config = of_kind(rendered("../envoy"), "ConfigMap")
    (data,) = (item["data"] for name, item in config.items() if name.startswith("envoy-"))
    assert data["envoy.yaml"] == (DEPLOY / "envoy/envoy.yaml").read_text()
