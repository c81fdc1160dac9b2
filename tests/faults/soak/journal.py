"""What the suite acknowledged: the picture of each image, in a journal that survives a kill."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

Image = tuple[str, str]
"""Library and image id."""


class Journal:
    """The acknowledged state of each image, and the changes that were sent but not answered."""

    def __init__(self, path: Path) -> None:
        """Read the journal of earlier runs, if any."""
        self._path = path
        self.pictures: dict[Image, int] = {}
        """Number of the picture of each stored image."""
        self.deleted: dict[Image, int] = {}
        """Number of the last picture of each deleted image."""
        self.open: dict[Image, int | None] = {}
        """Changes without an answer: the picture that was sent, None for a deletion."""
        if path.exists():
            for line in path.read_text().splitlines():
                self._apply(json.loads(line))
        self._file: TextIO = path.open("a")

    def close(self) -> None:
        self._file.close()

    def sent(self, image: Image, picture: int | None) -> None:
        """Record a change that is about to be sent; None deletes the image."""
        self._append({"sent": True, "image": image, "picture": picture})

    def settled(self, image: Image, picture: int | None) -> None:
        """Record the picture that an image has now; None: it does not exist."""
        self._append({"sent": False, "image": image, "picture": picture})

    def of_library(self, library: str, owner: str = "") -> list[Image]:
        """Return the stored images of a library whose id starts with the name of an owner."""
        return [
            image for image in self.pictures if image[0] == library and image[1].startswith(owner)
        ]

    def compact(self) -> None:
        """Replace the journal by one line for each image."""
        draft = self._path.with_suffix(".new")
        draft.write_text("".join(json.dumps(line) + "\n" for line in self._lines()))
        self._file.close()
        draft.rename(self._path)
        self._file = self._path.open("a")

    def _lines(self) -> Iterator[dict[str, object]]:
        for image, picture in self.deleted.items():
            yield {"sent": False, "image": image, "picture": picture}
            yield {"sent": False, "image": image, "picture": None}
        for image, picture in self.pictures.items():
            yield {"sent": False, "image": image, "picture": picture}
        for image, change in self.open.items():
            yield {"sent": True, "image": image, "picture": change}

    def _append(self, line: dict[str, object]) -> None:
        self._apply(line)
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def _apply(self, line: dict[str, Any]) -> None:
        library, image_id = line["image"]
        image: Image = (library, image_id)
        picture: int | None = line["picture"]
        if line["sent"]:
            self.open[image] = picture
            return
        self.open.pop(image, None)
        before = self.pictures.pop(image, None)
        self.deleted.pop(image, None)
        if picture is not None:
            self.pictures[image] = picture
        elif before is not None:
            self.deleted[image] = before
            while len(self.deleted) > 500:
                self.deleted.pop(next(iter(self.deleted)))
