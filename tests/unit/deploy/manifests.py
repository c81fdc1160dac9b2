"""Readers of the files under deploy/, which interpret them as Docker, Compose and kubectl do."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from imagesearch_services.common.env import Env

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
BIN = Path(sys.executable).parent
SERVICES = {
    "gateway": "imagesearch.gateway.v1.ImageSearchService",
    "embedding": "imagesearch.embedding.v1.EmbeddingService",
    "catalog": "imagesearch.catalog.v1.CatalogService",
}
"""Health name of each service, by short name."""

Document = dict[str, Any]


def read_settings(service: str, variables: Mapping[str, str]) -> Any:
    """Read the settings of a service from environment variables; unknown variables raise."""
    module = importlib.import_module(f"imagesearch_services.{service}.settings")
    settings = next(
        item
        for name, item in vars(module).items()
        if name in {"Settings", f"{service.title()}Settings"}
    )
    if "variables" in inspect.signature(settings.from_env).parameters:
        return settings.from_env(variables)
    return settings.from_env(Env(f"IMAGESEARCH_{service.upper()}_", variables))


@dataclass
class Stage:
    """A build stage of a container file."""

    image: str
    name: str = ""
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def arguments(self, keyword: str) -> list[str]:
        return [arguments for found, arguments in self.instructions if found == keyword]

    @property
    def environment(self) -> dict[str, str]:
        pairs = (pair for line in self.arguments("ENV") for pair in shlex.split(line))
        return dict(pair.split("=", 1) for pair in pairs)

    @property
    def copied_from_context(self) -> list[tuple[list[str], str]]:
        copies = [line.split() for line in self.arguments("COPY") if not line.startswith("--from")]
        return [(sources, target) for *sources, target in copies]


def container_file(name: str) -> list[Stage]:
    """Parse a container file into its stages; build arguments take their defaults."""
    text = (DEPLOY / "containers" / f"{name}.Dockerfile").read_text()
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    defaults: dict[str, str] = {}
    stages: list[Stage] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        keyword, arguments = line.split(maxsplit=1)
        if keyword == "ARG" and not stages:
            argument, value = arguments.split("=", 1)
            defaults[argument] = value
        elif keyword == "FROM":
            image, *alias = arguments.split()
            for argument, value in defaults.items():
                image = image.replace(f"${{{argument}}}", value)
            stages.append(Stage(image, alias[-1] if alias else ""))
        else:
            stages[-1].instructions.append((keyword, re.sub(r"\s+", " ", arguments)))
    return stages


def compose(*layers: str) -> Document:
    """Return compose.yaml merged with layers, by the rules of the specification.

    Variables take their defaults.
    """
    names = ["compose.yaml", *(f"compose.{layer}.yaml" for layer in layers)]
    merged: Document = {}
    for name in names:
        text = (DEPLOY / name).read_text()
        merged = merge(merged, yaml.safe_load(re.sub(r"\$\{\w+:-(.*?)\}", r"\1", text)))
    return merged


def merge(base: Any, layer: Any) -> Any:
    """Merge mappings key by key; other values of the layer replace those of the base."""
    if isinstance(base, dict) and isinstance(layer, dict):
        return base | {key: merge(base.get(key), value) for key, value in layer.items()}
    return layer


@functools.cache
def rendered(*folders: str) -> list[Document]:
    """Return the objects of a kustomization, or of the base with components added.

    Args:
        folders: An overlay, or components, relative to deploy/kubernetes.
    """
    if len(folders) == 1 and folders[0].startswith(("base", "overlays/")):
        return kustomize(KUBERNETES / folders[0])
    with tempfile.TemporaryDirectory() as name:
        work = Path(name).resolve()
        paths = [os.path.relpath((KUBERNETES / folder).resolve(), work) for folder in folders]
        kustomization = {
            "namespace": "imagesearch",
            "resources": [os.path.relpath(KUBERNETES / "base", work)],
            "components": paths,
        }
        (work / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return kustomize(work)


def kustomize(folder: Path) -> list[Document]:
    done = subprocess.run(
        [BIN / "kubectl", "kustomize", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(objects: list[Document], *kinds: str) -> dict[str, Document]:
    """Return the objects of these kinds by name."""
    return {item["metadata"]["name"]: item for item in objects if item["kind"] in kinds}


def pods(objects: list[Document]) -> dict[str, Document]:
    """Return the pod template of each workload, by name of the workload."""
    workloads = of_kind(objects, "Deployment", "StatefulSet", "Job")
    return {name: item["spec"]["template"] for name, item in workloads.items()}


def containers(pod: Document) -> list[Document]:
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def environment(container: Document) -> dict[str, str]:
    """Return the environment of a container; variables from a secret have the value "secret"."""
    return {item["name"]: item.get("value", "secret") for item in container.get("env", ())}
