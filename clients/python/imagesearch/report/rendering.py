"""Rendering of templates."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from imagesearch.report import words


def render(template: str, **values: Any) -> str:
    """Render a template and return the page.

    Args:
        template: name of a file in `templates/` that extends `base.html`.
        values: variables of the template.

    Raises:
        jinja2.UndefinedError: a variable of the template is missing.
    """
    return _environment().get_template(template).render(made_at=datetime.now(UTC), **values)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("imagesearch.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["chance"] = words.chance_words
    environment.filters["duration"] = words.duration_words
    environment.filters["file_size"] = words.size_words
    environment.globals["style"] = Markup(_source(environment, "style.css"))  # noqa: S704  # ours
    return environment


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None  # noqa: S101  # narrows the type
    return environment.loader.get_source(environment, name)[0]
