"""The list of failpoints is complete."""

import re
from pathlib import Path

from imagesearch_services.catalog import failpoints

SERVICE = Path(failpoints.__file__).parent


def test_every_failpoint_of_the_code_is_listed_once() -> None:
    found = [
        name
        for file in SERVICE.rglob("*.py")
        for name in re.findall(r'\bfailpoint\("([^"]+)"\)', file.read_text(encoding="utf-8"))
    ]
    assert sorted(found) == sorted(failpoints.NAMES)
