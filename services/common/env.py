"""Typed settings from environment variables, with defaults and errors that name the variable."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class SettingsError(Exception):
    """A variable is missing, invalid or unknown; the message names it."""


class Env:
    """Environment variables with a common prefix, for example `IMAGESEARCH_GATEWAY_`.

    All methods raise SettingsError for an invalid value, and for an empty or missing variable
    without a default.

    Example:
        >>> env = Env("IMAGESEARCH_GATEWAY_", {"IMAGESEARCH_GATEWAY_PORT": "50051"})
        >>> env.integer("PORT", 0)
        50051
    """

    def __init__(self, prefix: str, variables: Mapping[str, str] | None = None) -> None:
        self.prefix = prefix
        self._variables = os.environ if variables is None else variables
        self._read_names: set[str] = set()

    def text(self, name: str, default: str | None = None) -> str:
        """Return a string."""
        return self._read(name, default, str, "text")

    def integer(self, name: str, default: int | None = None) -> int:
        return self._read(name, default, int, "an integer")

    def number(self, name: str, default: float | None = None) -> float:
        return self._read(name, default, float, "a number")

    def path(self, name: str, default: Path | None = None) -> Path:
        return self._read(name, default, Path, "a path")

    def words(self, name: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return the members of a comma-separated list, without empty members."""
        return self._read(name, default, _words, "a comma-separated list")

    def refuse_unknown(self) -> None:
        """Raise SettingsError for variables that have the prefix and were never read.

        They are most likely misspelled.
        """
        unknown = sorted(
            name
            for name in self._variables
            if name.startswith(self.prefix) and name not in self._read_names
        )
        if unknown:
            raise SettingsError(
                f"unknown environment variables: {', '.join(unknown)}; check the spelling"
            )

    def _read(self, name: str, default: T | None, parse: Callable[[str], T], expected: str) -> T:
        variable = self.prefix + name
        self._read_names.add(variable)
        raw = self._variables.get(variable, "")
        if raw == "":
            if default is None:
                raise SettingsError(f"{variable} is required")
            return default
        try:
            return parse(raw)
        except ValueError:
            raise SettingsError(f"{variable} must be {expected}, not {raw!r}") from None


def _words(raw: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in raw.split(",") if word.strip())
