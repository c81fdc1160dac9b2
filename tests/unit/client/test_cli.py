"""The command line's own logic, against a fake Gateway."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner, Result
from google.protobuf.empty_pb2 import Empty

from imagesearch.cli import main
from imagesearch.client import (
    BatchAddImagesResponse,
    BatchAddImagesResult,
    Image,
    Library,
    Match,
    SearchImagesResponse,
)
from imagesearch.gateway.v1 import image_pb2, library_pb2, search_pb2
from tests.ports import free_port
from tests.unit.client.conftest import FakeGateway, status

UNREADABLE = status(
    grpc.StatusCode.INVALID_ARGUMENT, "the file is not a picture", "IMAGE_UNREADABLE"
)
OVERLOADED = status(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", "OVERLOADED", retry_after_s=0.01)


def run(gateway: FakeGateway, *arguments: str | Path) -> Result:
    words = ["--target", gateway.target, *(str(argument) for argument in arguments)]
    return CliRunner().invoke(main, words)


def store(request: image_pb2.BatchAddImagesRequest) -> BatchAddImagesResponse:
    """Accept all pictures that are not empty."""
    return BatchAddImagesResponse(
        results=[
            BatchAddImagesResult(image=Image(image_id=item.image_id))
            if item.image.content
            else BatchAddImagesResult(error=UNREADABLE)
            for item in request.requests
        ]
    )


def find_content(request: search_pb2.SearchImagesRequest) -> SearchImagesResponse:
    """Return a match whose image id is the content of the query."""
    image = Image(image_id=request.image.content.decode())
    return SearchImagesResponse(matches=[Match(image=image, score=0.5)], total_found=1)


def write(folder: Path, contents: dict[str, str]) -> Sequence[Path]:
    for name, content in contents.items():
        (folder / name).write_text(content)
    return [folder / name for name in contents]


def test_an_unreadable_picture_does_not_stop_the_others(
    gateway: FakeGateway, tmp_path: Path
) -> None:
    gateway.answers("BatchAddImages", store)
    write(tmp_path, {"a.jpg": "a", "b.jpg": "", "c.jpg": "c"})
    result = run(gateway, "add", "shop", tmp_path)
    assert result.exit_code == 1
    assert "Added 2 pictures to shop" in result.stdout
    assert "b.jpg: the file is not a picture [IMAGE_UNREADABLE]" in result.stderr
    assert "a.jpg" not in result.output


def test_add_prints_a_json_object_per_picture_in_order(
    gateway: FakeGateway, tmp_path: Path
) -> None:
    gateway.answers("BatchAddImages", store)
    names = [f"{number:03}.jpg" for number in range(100)]
    write(tmp_path, dict.fromkeys(names, "x") | {"050.jpg": ""})
    result = run(gateway, "add", "shop", tmp_path, "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(line["path"]).name for line in lines] == names
    assert [line["path"] for line in lines if "error" in line] == [str(tmp_path / "050.jpg")]
    assert lines[50]["error"]["details"][0]["reason"] == "IMAGE_UNREADABLE"
    assert lines[51]["image"]["imageId"] == "051.jpg"


def test_add_sends_tags_category_and_entity(gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.answers("BatchAddImages", store)
    write(tmp_path, {"a.jpg": "a"})
    options = ["--tag", "sold=false", "--tag", "price=9.5", "--tag", "size=4", "--tag", 'sku="7"']
    options += ["--category", "Digital-Device", "--entity", "e", "--overwrite"]
    assert run(gateway, "add", "libraries/shop", tmp_path, *options).exit_code == 0
    (batch,) = gateway.requests
    (item,) = batch.requests
    assert batch.parent == "libraries/shop"
    assert {name: value.WhichOneof("kind") for name, value in item.tags.items()} == {
        "sold": "bool_value",
        "price": "float_value",
        "size": "int_value",
        "sku": "string_value",
    }
    assert (item.category, item.entity_id, item.allow_overwrite) == (13, "e", True)


def test_add_retries_pictures_that_an_overloaded_suite_refused(
    gateway: FakeGateway, tmp_path: Path
) -> None:
    def refuse_the_second(request: image_pb2.BatchAddImagesRequest) -> BatchAddImagesResponse:
        answer = store(request)
        answer.results[1].error.CopyFrom(OVERLOADED)
        return answer

    gateway.answers("BatchAddImages", OVERLOADED, refuse_the_second, store)
    write(tmp_path, {"a.jpg": "a", "b.jpg": "b"})
    result = run(gateway, "add", "shop", tmp_path)
    assert result.exit_code == 0, result.output
    sent = [[item.image_id for item in batch.requests] for batch in gateway.requests]
    assert sent == [["a.jpg", "b.jpg"], ["a.jpg", "b.jpg"], ["b.jpg"]]
    first, _, last = gateway.requests
    assert first.requests[1].request_id == last.requests[0].request_id


def test_add_stops_if_the_library_does_not_exist(gateway: FakeGateway, tmp_path: Path) -> None:
    missing = status(grpc.StatusCode.NOT_FOUND, "no library 'shop'", "LIBRARY_NOT_FOUND")
    gateway.answers("BatchAddImages", missing)
    write(tmp_path, {"a.jpg": "a"})
    result = run(gateway, "add", "shop", tmp_path)
    assert result.exit_code == 1
    assert "Error: no library 'shop' [LIBRARY_NOT_FOUND]; `imagesearch library list`" in (
        result.stderr
    )


def test_search_prints_a_line_per_file_in_order(gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.answers("SearchImages", find_content)
    paths = write(tmp_path, {f"{number}.jpg": str(number) for number in range(20)})
    result = run(gateway, "search", "shop", "--json", *paths)
    found = [
        json.loads(line)["matches"][0]["image"]["imageId"]
        for line in result.stdout.split("\n")[:-1]
    ]
    assert found == [str(number) for number in range(20)]
    assert result.exit_code == 0


def test_an_error_takes_the_place_of_the_answer_of_a_file(
    gateway: FakeGateway, tmp_path: Path
) -> None:
    gateway.answers("SearchImages", find_content)
    a, b = write(tmp_path, {"a.jpg": "a", "b.jpg": "b"})
    result = run(gateway, "search", "shop", "--json", a, tmp_path / "none.jpg", b)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert ["error" in line for line in lines] == [False, True, False]
    assert lines[1]["path"] == str(tmp_path / "none.jpg")
    assert result.exit_code == 1


def test_the_matches_of_all_pages_are_one_answer(gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.answers(
        "SearchImages",
        SearchImagesResponse(matches=[Match()] * 100, total_found=120, next_page_token="2"),  # noqa: S106
        SearchImagesResponse(matches=[Match()] * 20, total_found=120),
    )
    (a,) = write(tmp_path, {"a.jpg": "a"})
    result = run(gateway, "search", "shop", a, "--limit", "1000", "--json")
    answer = json.loads(result.stdout)
    assert len(answer["matches"]) == answer["totalFound"] == 120
    assert answer["nextPageToken"] == ""
    assert [request.page_token for request in gateway.requests] == ["", "2"]


def test_thresholds_and_region_are_sent(gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.answers("SearchImages", find_content)
    (a,) = write(tmp_path, {"a.jpg": "a"})
    options = ["--region", "1,2,3.5,4", "--min-score", "0", "--max-false-positive-rate", "0.1"]
    assert run(gateway, "search", "shop", a, "--relation", "both", *options).exit_code == 0
    (request,) = gateway.requests
    assert (request.region.x_min, request.region.x_max) == (1, 3.5)
    assert request.HasField("min_score")
    assert request.max_false_positive_rate == 0.1
    assert request.relation == search_pb2.RELATION_BOTH


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "shop", "a.jpg", "--region", "1,2,3"],
        ["search", "shop", "a.jpg", "--limit", "0"],
        ["search", "shop"],
        ["add", "shop", "a.jpg", "--tag", "nothing"],
        ["library", "create", "shop"],
        ["image", "update", "shop", "a"],
        ["image", "delete", "shop"],
        ["no-such-command"],
    ],
)
def test_wrong_usage_exits_with_2(gateway: FakeGateway, arguments: list[str]) -> None:
    assert run(gateway, *arguments).exit_code == 2


def test_the_target_is_accepted_after_the_command(gateway: FakeGateway) -> None:
    gateway.answers("GetLibrary", Library(name="libraries/shop"))
    command = ["library", "get", "shop", "--json", "--target", gateway.target]
    result = CliRunner().invoke(main, ["--target", "elsewhere:1", *command])
    assert json.loads(result.stdout)["name"] == "libraries/shop"


def test_the_error_of_an_unreachable_suite_is_one_line_on_stderr() -> None:
    target = f"127.0.0.1:{free_port()}"
    result = CliRunner().invoke(main, ["library", "list", "--target", target])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert f"no suite answers at {target}" in result.stderr
    assert "make up" in result.stderr


def test_an_unsupported_call_names_its_reason(gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.answers(
        "SearchImages",
        status(grpc.StatusCode.UNIMPLEMENTED, "element search is not built", "NOT_IMPLEMENTED"),
    )
    (file,) = write(tmp_path, {"a.jpg": "a"})
    result = run(gateway, "search", "patterns", file)
    assert result.exit_code == 1
    assert "NOT_IMPLEMENTED" in result.stderr


def test_delete_continues_after_a_missing_image(gateway: FakeGateway) -> None:
    missing = status(grpc.StatusCode.NOT_FOUND, "no image 'a'", "IMAGE_NOT_FOUND")
    gateway.answers("DeleteImage", missing, Empty())
    result = run(gateway, "image", "delete", "shop", "a", "b")
    assert result.exit_code == 1
    assert "Deleted b" in result.stdout


def test_control_characters_and_markup_are_escaped(gateway: FakeGateway) -> None:
    image = Image(image_id="[red]a[/red]")
    image.tags["note"].string_value = "\x1b[31mred"
    gateway.answers("GetImage", image)
    result = run(gateway, "image", "get", "shop", "a")
    assert "[red]a[/red]" in result.stdout
    assert "\x1b" not in result.stdout


def test_help_loads_neither_grpc_nor_rich() -> None:
    code = "import imagesearch.cli, sys; print({'grpc', 'rich', 'google'} & set(sys.modules))"
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert output.stdout.strip() == "set()"


def test_a_library_of_a_later_type_is_listed_with_its_number(gateway: FakeGateway) -> None:
    libraries = [Library(name="libraries/shop", type=1), Library(name="libraries/new", type=99)]
    gateway.answers("ListLibraries", library_pb2.ListLibrariesResponse(libraries=libraries))
    result = run(gateway, "library", "list")
    assert result.exit_code == 0
    assert "whole-image" in result.output
    assert "99" in result.output
