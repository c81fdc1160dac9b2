"""Annotations of the public protos, which generators and JSON proxies read."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.rpc import status_pb2

from tests.unit.protos.contracts import (
    INTERNAL,
    PUBLIC,
    behaviors,
    files,
    find_field,
    http_binding,
    http_rule,
    is_read,
    methods,
    referenced_type,
    resource_type,
    sent_messages,
    signatures,
)

GOOGLEAPIS = Path(status_pb2.__file__).parents[2]
PATH_FIELD = re.compile(r"{([\w.]+)=[\w/*]+}")

public = pytest.mark.parametrize("method", methods(PUBLIC), ids=lambda method: method.name)


def test_the_public_bundle_compiles_alone(tmp_path: Path) -> None:
    bundle = shutil.copytree(PUBLIC, tmp_path / "bundle")
    names = [str(path.relative_to(bundle)) for path in bundle.rglob("*.proto")]
    compiled = tmp_path / "bundle.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{bundle}", f"-I{GOOGLEAPIS}"]
    subprocess.run([*command, f"--descriptor_set_out={compiled}", *names], check=True)
    result = FileDescriptorSet.FromString(compiled.read_bytes())
    assert {file.name for file in result.file} == set(names)


@public
def test_the_url_of_a_method_names_fields_of_its_request(method: MethodDescriptor) -> None:
    _, url = http_binding(method)
    assert url.startswith("/v1/")
    body = http_rule(method).body
    paths = PATH_FIELD.findall(url) + ([body] if body not in {"", "*"} else [])
    for path in paths:
        assert find_field(method.input_type, path), path


@public
def test_a_url_without_a_body_belongs_to_a_read_or_to_a_deletion(method: MethodDescriptor) -> None:
    verb, _ = http_binding(method)
    assert bool(http_rule(method).body) == (verb in {"post", "patch"})
    if verb == "get":
        assert is_read(method)
    if verb in {"patch", "delete"}:
        assert not is_read(method)


@public
def test_a_custom_verb_is_the_verb_of_the_method(method: MethodDescriptor) -> None:
    _, url = http_binding(method)
    _, _, verb = url.partition(":")
    assert method.name.startswith(verb[:1].upper() + verb[1:])


def test_no_two_methods_share_a_url() -> None:
    bindings = [http_binding(method) for method in methods(PUBLIC)]
    urls = [(verb, re.sub(r"{[\w.]+=", "{", url)) for verb, url in bindings]
    assert len(set(urls)) == len(urls)


@pytest.mark.parametrize(
    "method", methods(PUBLIC) + methods(INTERNAL), ids=lambda method: method.full_name
)
def test_a_method_is_a_read_unless_its_request_has_a_request_id(method: MethodDescriptor) -> None:
    fields = {field.name for message in sent_messages(method) for field in message.fields}
    assert is_read(method) == fields.isdisjoint({"request_id", "request_ids"})


@public
def test_every_field_that_a_caller_sets_has_a_behavior(method: MethodDescriptor) -> None:
    known = {"REQUIRED", "OPTIONAL", "OUTPUT_ONLY", "IMMUTABLE", "IDENTIFIER"}
    missing = [
        field.full_name
        for message in sent_messages(method)
        for field in message.fields
        if not message.GetOptions().map_entry
        # The oneof tells what is required, except for a single optional field.
        and (field.containing_oneof is None or field.containing_oneof.name.startswith("_"))
        and not behaviors(field) & known
    ]
    assert not missing


@public
def test_a_signature_has_fields_of_the_request_with_all_required_ones(
    method: MethodDescriptor,
) -> None:
    required = {field.name for field in method.input_type.fields if "REQUIRED" in behaviors(field)}
    assert signatures(method)
    for signature in signatures(method):
        names = signature.split(",") if signature else []
        assert all(find_field(method.input_type, name) for name in names)
        assert required <= set(names)


def test_every_name_of_a_resource_in_a_request_refers_to_a_resource() -> None:
    messages = [
        message for file in files(PUBLIC) for message in file.message_types_by_name.values()
    ]
    types = {resource_type(message) for message in messages} - {""}
    assert types == {"imagesearch/Library", "imagesearch/Image"}
    sent = {message for method in methods(PUBLIC) for message in sent_messages(method)}
    for field in (field for message in sent for field in message.fields):
        is_name = field.name in {"name", "names", "parent", "image_name", "name_a", "name_b"}
        if is_name and "IDENTIFIER" not in behaviors(field):
            assert referenced_type(field) in types, field.full_name
