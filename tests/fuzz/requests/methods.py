"""All RPCs of the suite, read from the descriptors of the contracts."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

import imagesearch


@dataclass(frozen=True)
class Method:
    """An RPC."""

    service: str
    """Process that serves it: gateway, embedding or catalog."""
    path: str
    """Path of the call, `/PACKAGE.SERVICE/METHOD`."""
    request: type[Message]
    response: type[Message]
    is_request_stream: bool
    is_response_stream: bool

    @property
    def name(self) -> str:
        return f"{self.service} {self.path.rpartition('/')[2]}"


def methods() -> list[Method]:
    """Return all RPCs; a new one is in the list as soon as its stubs are generated."""
    return sorted(_methods(), key=lambda method: method.path)


def _methods() -> Iterator[Method]:
    for folder in map(Path, imagesearch.__path__):
        for file in folder.glob("*/v*/*_service_pb2.py"):
            module = ".".join(("imagesearch", *file.relative_to(folder).with_suffix("").parts))
            descriptor = importlib.import_module(module).DESCRIPTOR
            for service in descriptor.services_by_name.values():
                for method in service.methods:
                    yield _method(descriptor.package.split(".")[1], method)


def _method(service: str, method: MethodDescriptor) -> Method:
    return Method(
        service,
        f"/{method.containing_service.full_name}/{method.name}",
        _class(method.input_type),
        _class(method.output_type),
        method.client_streaming,
        method.server_streaming,
    )


def _class(descriptor: Descriptor) -> type[Message]:
    return GetMessageClass(descriptor)
