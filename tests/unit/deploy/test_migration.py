"""The names on the migration page exist in the public contract."""

from __future__ import annotations

import re
from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FileDescriptor

from imagesearch.gateway.v1 import image_search_service_pb2
from imagesearch.type.v1 import category_pb2, error_reason_pb2
from tests.unit.deploy.manifests import DEPLOY, ROOT

PAGE = (DEPLOY / "migration.md").read_text()
SERVICE = image_search_service_pb2.DESCRIPTOR.services_by_name["ImageSearchService"]
REASONS = {
    name.removeprefix("ERROR_REASON_")
    for name in error_reason_pb2.ErrorReason.keys()  # noqa: SIM118
}


def files(file: FileDescriptor) -> Iterator[FileDescriptor]:
    yield file
    for dependency in file.dependencies:
        yield from files(dependency)


def known_names() -> set[str]:
    """Return every RPC, field, enum value and error reason of the public contract."""
    names = {method.name for method in SERVICE.methods} | REASONS
    for file in files(image_search_service_pb2.DESCRIPTOR):
        messages: list[Descriptor] = list(file.message_types_by_name.values())
        enums: list[EnumDescriptor] = list(file.enum_types_by_name.values())
        names |= {field.name for message in messages for field in message.fields}
        names |= {value.name for enum in enums for value in enum.values}
    return names


def contract_cells() -> Iterator[str]:
    """Yield the last cell of every row in tables whose last heading is "ours"."""
    ours = False
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            ours = False
        elif cells[-1] == "ours":
            ours = True
        elif ours and set(line) - set("|-"):
            yield cells[-1]


def test_every_name_in_the_column_ours_is_in_the_contract() -> None:
    unknown = {
        name
        for cell in contract_cells()
        for name in re.findall(r"`([A-Za-z]\w+)`", cell)
        if name not in known_names() | {"NOT"}
    }
    assert not unknown


def test_every_category_has_the_number_that_the_contract_documents() -> None:
    proto = (ROOT / "protos/public/imagesearch/type/v1/category.proto").read_text()
    expected = re.findall(r"\[(\d+)\]\s+(CATEGORY_\w+) =", proto)
    found = re.findall(r"^\| (\d+) \| [\w ]+ \| `(CATEGORY_\w+)` \|$", PAGE, flags=re.MULTILINE)
    assert found == expected
    assert len(expected) == len(category_pb2.Category.keys()) - 1
