"""The contracts as descriptors, with their options."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

from google.api import annotations_pb2, client_pb2, field_behavior_pb2, resource_pb2
from google.api.field_behavior_pb2 import FieldBehavior
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor import (
    Descriptor,
    FieldDescriptor,
    FileDescriptor,
    MethodDescriptor,
    ServiceDescriptor,
)
from google.protobuf.descriptor_pb2 import MethodOptions

PROTOS = Path(__file__).parents[3] / "protos"
PUBLIC = PROTOS / "public"
INTERNAL = PROTOS / "internal"


def files(bundle: Path) -> list[FileDescriptor]:
    """Return the descriptors of all protos of a bundle, from the generated stubs."""
    names = sorted(path.relative_to(bundle) for path in bundle.rglob("*.proto"))
    modules = [str(name.with_suffix("")).replace("/", ".") + "_pb2" for name in names]
    return [importlib.import_module(module).DESCRIPTOR for module in modules]


def services(bundle: Path) -> list[ServiceDescriptor]:
    return [service for file in files(bundle) for service in file.services_by_name.values()]


def methods(bundle: Path) -> list[MethodDescriptor]:
    return [method for service in services(bundle) for method in service.methods]


def http_rule(method: MethodDescriptor) -> HttpRule:
    return method.GetOptions().Extensions[annotations_pb2.http]


def http_binding(method: MethodDescriptor) -> tuple[str, str]:
    """Return the HTTP method and the URL of an RPC, for example ("get", "/v1/libraries")."""
    rule = http_rule(method)
    verb = rule.WhichOneof("pattern")
    assert verb, f"{method.full_name} has no google.api.http"
    return verb, getattr(rule, verb)


def is_read(method: MethodDescriptor) -> bool:
    return bool(method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS)


def signatures(method: MethodDescriptor) -> list[str]:
    return list(method.GetOptions().Extensions[client_pb2.method_signature])


def behaviors(field: FieldDescriptor) -> set[str]:
    """Return names of the behaviors of a field, for example {"REQUIRED"}."""
    numbers = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    return {FieldBehavior.Name(number) for number in numbers}


def resource_type(message: Descriptor) -> str:
    return str(message.GetOptions().Extensions[resource_pb2.resource].type)


def referenced_type(field: FieldDescriptor) -> str:
    reference = field.GetOptions().Extensions[resource_pb2.resource_reference]
    return str(reference.type or reference.child_type)


def sent_messages(method: MethodDescriptor) -> Iterator[Descriptor]:
    """Yield the request and every message in it that a caller fills in."""
    pending, seen = [method.input_type], set()
    while pending:
        message = pending.pop()
        if message.full_name in seen or not message.full_name.startswith("imagesearch."):
            continue
        seen.add(message.full_name)
        yield message
        pending += [
            field.message_type
            for field in message.fields
            if field.message_type is not None and "OUTPUT_ONLY" not in behaviors(field)
        ]


def find_field(message: Descriptor, path: str) -> FieldDescriptor | None:
    """Return the field at a path of names such as "library.name", or None."""
    head, _, rest = path.partition(".")
    field = message.fields_by_name.get(head)
    if not rest or field is None or field.message_type is None:
        return field
    return find_field(field.message_type, rest)
