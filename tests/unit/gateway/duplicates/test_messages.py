"""Response messages of FindDuplicates."""

from __future__ import annotations

from dataclasses import replace

from imagesearch_services.gateway.contract.duplicates import write_duplicates
from imagesearch_services.gateway.duplicates.model import (
    DuplicateImage,
    DuplicatesUpdate,
)
from imagesearch_services.gateway.model import StoredImage
from tests.unit.gateway.fakes import stored


def test_a_group_over_the_message_limit_is_split() -> None:
    members = [DuplicateImage(large_image(f"i{number}"), 1.0, True) for number in range(2000)]
    update = DuplicatesUpdate(members, 5, 10, "after", "before")
    messages = list(write_duplicates(update))
    assert len(messages) > 1
    assert all(message.ByteSize() < 4 * 1024 * 1024 for message in messages)
    assert {message.group.images[0].image.image_id for message in messages} == {"i0"}
    copies = [member.image.image_id for message in messages for member in message.group.images[1:]]
    assert copies == [f"i{number}" for number in range(1, 2000)]
    assert [message.next_page_token for message in messages] == [
        *["before"] * (len(messages) - 1),
        "after",
    ]


def large_image(image_id: str) -> StoredImage:
    plain = stored(image_id)
    return replace(plain, fields=replace(plain.fields, custom_content="x" * 4096))
