"""The page of a reproduction: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import torch
from jinja2 import DictLoader, Environment, StrictUndefined

from vaefast.report.summary import versions
from vaefast.reproduce.store import said

__all__ = ["render_page", "setting_rows"]

SHARED = {"shell.html.j2": "vaefast.reproduce", "parts.html.j2": "vaefast.report"}


def setting_rows(
    settings: Mapping[str, Any], published: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    """Name, value here and published value of every setting; – where nothing was published."""
    return [
        (
            name.replace("_", " "),
            _plain(value),
            _plain(published[name]) if name in published else "–",
        )
        for name, value in settings.items()
    ]


def _plain(value: Any) -> str:
    if isinstance(value, list) and len(value) > 12:
        return f"{len(value)} from {min(value):g} to {max(value):g}"
    return said(value).replace(",", ", ")


def render_page(experiment: str, *, origin: str, **values: Any) -> str:
    """The template ``page.html.j2`` of an experiment's package as HTML text.

    Args:
        experiment: name of the package.
        origin: which sources made the numbers, a sentence.
        values: what its sections show; besides ``findings``, sentences; ``sizes``, rows of a
            setting, here and published; ``command``, the command line that makes these numbers.
    """
    sources = {
        name: (files(package) / name).read_text(encoding="utf-8")
        for name, package in SHARED.items()
    }
    own = files("vaefast.reproduce") / experiment / "page.html.j2"
    sources["page"] = own.read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=DictLoader(sources),
    )
    return environment.get_template("page").render(
        experiment=experiment,
        origin=origin,
        style=(files("vaefast.report") / "report.css").read_text(encoding="utf-8"),
        versions=versions(),
        threads=torch.get_num_threads(),
        **values,
    )
