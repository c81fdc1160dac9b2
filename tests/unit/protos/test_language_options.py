"""Options of the protos that decide how generated code is named, for each language."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import FileDescriptor

from tests.unit.protos.contracts import INTERNAL, PUBLIC, files

GO_MODULE = "github.com/openimagesearch/imagesearch/clients/go"
JAVA_PREFIX = "io.github.openimagesearch"


@pytest.mark.parametrize("file", files(PUBLIC) + files(INTERNAL), ids=lambda file: file.name)
def test_the_names_of_generated_code_follow_from_the_proto_package(file: FileDescriptor) -> None:
    _, package, version = file.package.split(".")
    namespace = ["ImageSearch", package.capitalize(), version.upper()]
    stem = file.name.rsplit("/", 1)[-1].removesuffix(".proto")
    options = file.GetOptions()
    assert options.go_package == f"{GO_MODULE}/{package}/{version};{package}{version}"
    assert options.java_package == f"{JAVA_PREFIX}.{package}.{version}"
    assert options.java_multiple_files
    assert options.java_outer_classname == stem.title().replace("_", "") + "Proto"
    assert options.csharp_namespace == ".".join(namespace)
    assert options.php_namespace == "\\".join(namespace)
    assert options.ruby_package == "::".join(namespace)
