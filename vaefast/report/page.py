"""report.html: one file that needs nothing else."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from torch import Tensor

from vaefast.audit.run import Audit, Outcome
from vaefast.report.charts import chart_sections
from vaefast.report.findings import findings, headline_attack, measure_of, tiles
from vaefast.report.images import SHOWN, Strip, strip
from vaefast.report.tables import attack_rows, number_rows, stage_rows
from vaefast.report.words import NOT_ADAPTIVE, attack_name, number, reach, scale

__all__ = ["render"]

Numbers = dict[str, Any]


class Panel(NamedTuple):
    group: str
    tab: str
    title: str
    text: str
    chosen: bool
    strips: list[Strip]


def render(audit: Audit, numbers: Numbers, summary: dict[str, Any]) -> str:
    """The page as HTML text.

    Args:
        audit: what to show.
        numbers: its aggregates.
        summary: the content of summary.json; its configuration, versions and command are shown.
    """
    folder = files("vaefast.report")
    template = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string((folder / "report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        style=(folder / "report.css").read_text(encoding="utf-8"),
        audit=audit,
        numbers=numbers,
        summary=summary,
        findings=findings(numbers),
        tiles=tiles(numbers),
        panels=_panels(audit, numbers),
        sections=chart_sections(audit, numbers),
        attack_rows=attack_rows(numbers),
        number_rows=number_rows(numbers),
        stage_rows=stage_rows(audit),
        r=number(audit.r, 2),
        measure=measure_of(numbers),
        scale=scale(numbers),
        not_adaptive=NOT_ADAPTIVE,
    )


def _panels(audit: Audit, numbers: Numbers) -> list[Panel]:
    chosen = headline_attack(numbers, "latent")
    panels: list[Panel] = []
    for outcome in audit.outcomes if audit.images else []:
        attack = numbers["attacks"][outcome.plan.name]
        panels.append(
            Panel(
                group=attack_name(attack).rsplit("\u00a0", 1)[0],
                tab=f"{attack['radius']:.3g}",
                title=attack_name(attack),
                text=f"The attack {reach(attack)}.",
                chosen=attack is chosen,
                strips=_strips(audit, outcome),
            )
        )
    return panels


def _strips(audit: Audit, outcome: Outcome) -> list[Strip]:
    clean, attacked = audit.values, outcome.values
    strips = [
        ("Original", audit.x, clean.get("predicted")),
        ("Adversarial", outcome.result.x_adv, attacked.get("predicted")),
        ("Reconstruction", audit.reconstruction, None),
        ("Reconstruction of the adversarial", outcome.reconstruction, None),
        ("After the defence", outcome.defended, attacked.get("predicted_defended")),
    ]
    reference = clean.get("predicted")
    return [
        strip(title, _shown(audit, images), classes, reference, audit.classes)
        for title, images, classes in strips
    ]


def _shown(audit: Audit, images: Tensor) -> Tensor:
    """The first images with their box mapped to [0, 1]; without a box they are clipped to it."""
    images = images[:SHOWN]
    return (images - audit.low) / (audit.high - audit.low) if audit.bounded else images
