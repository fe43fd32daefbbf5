"""report.html of this reproduction."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vaefast.reproduce.barrett2022.charts import charts
from vaefast.reproduce.barrett2022.findings import findings
from vaefast.reproduce.barrett2022.inside import ATTACKS
from vaefast.reproduce.barrett2022.measure import EVENTS, Measured
from vaefast.reproduce.barrett2022.run import Reproduction
from vaefast.reproduce.barrett2022.settings import Settings, named
from vaefast.reproduce.numbers import estimate, plus_minus
from vaefast.reproduce.shell import render_page, setting_rows

__all__ = ["render"]

OWN = ("data", "radii", "scored", "trainings", "seed")  # what the paper does not have
PUBLISHED = {"restarts": 10, "samples": 20, "inputs": "10, 25 over ‖σ‖"}


def render(found: Reproduction, command: str, origin: str) -> str:
    """The page as HTML text.

    Args:
        found: what to show.
        command: the command line that makes these numbers.
        origin: which sources made them, a sentence.
    """
    compared = [found.target, *found.rivals]
    return render_page(
        "barrett2022",
        found=found,
        findings=findings(found),
        charts=charts(found),
        published=[
            _published_row(m) for m in (*found.of("constant"), *found.of("std"), found.standard)
        ],
        upfront=[_upfront_row(m) for m in found.of("radius")],
        compared=[_compared_row(m) for m in compared],
        attack_columns=["attack", *(m.plan.title for m in compared)],
        attacks=[_attack_row(k, name, compared) for k, name in enumerate(ATTACKS)],
        trainings=", ".join(f"{count} ({named(k)})" for k, count in found.trainings.items()),
        sizes=setting_rows(found.settings.record(), _published(found)),
        command=command,
        origin=origin,
    )


def _published_row(model: Measured) -> list[str]:
    return [
        model.plan.title,
        plus_minus(estimate(model.elbo), 1.0, 0),
        f"{model.error.mean():.4f}",
        f"{model.norm.mean():.2f}",
        _certified(model, "certified_fixed"),
        _attacked(model, "fixed"),
        _certified(model, "theorem"),
        _certified(model, "certified_two"),
        _attacked(model, "two"),
    ]


def _upfront_row(model: Measured) -> list[str]:
    a, b, _, norm = model.constants
    certified = (float(getattr(model, f"certified_{event}").min()) for event in EVENTS)
    return [
        model.plan.title,
        f"{a:.2f}",
        f"{b:.2f}",
        f"{norm:.2f}",
        f"{model.error.mean():.4f}",
        *(f"{math.floor(1e4 * value) / 1e4:g}" for value in certified),
        *(f"{getattr(model, f'inside_{event}').min():.2f}" for event in EVENTS),
        *(_attacked(model, event) for event in EVENTS),
    ]


def _compared_row(model: Measured) -> list[str]:
    return [
        model.plan.title,
        f"{model.error.mean():.4f}",
        plus_minus(estimate(model.elbo), 1.0, 1),
        f"{model.norm.mean():.2f}",
        _certified(model, "certified_fixed"),
        *(_attacked(model, event) for event in EVENTS),
        f"{model.inside_fixed.min():.2f}",
        plus_minus(estimate(model.inside_damage.max(0)), 1.0, 2),
    ]


def _attack_row(index: int, name: str, compared: list[Measured]) -> list[str]:
    """Mean damage of one attack on each model; the margin search where it broke any input."""
    cells = [plus_minus(estimate(m.inside_damage[index]), 1.0, 2) for m in compared]
    if name.startswith("margin search"):
        moved = [int((m.inside_length[index] > 0).sum()) for m in compared]
        cells = [f"broke {count} of {len(compared[0].norm)}" for count in moved]
    return [name, *cells]


def _certified(model: Measured, key: str) -> str:
    values = getattr(model, key)
    return f"{values.mean():.3f}" if model.plan.lipschitz else "–"


def _attacked(model: Measured, event: str) -> str:
    """Median of those that broke, the smallest, and how many."""
    values = getattr(model, f"attacked_{event}")
    hit = values[np.isfinite(values)]
    return f"{np.median(hit):.2f}, {hit.min():.2f} ({len(hit)})" if len(hit) else "– (0)"


def _published(found: Reproduction) -> dict[str, Any]:
    record = Settings.of_data(found.settings.data, full=True).record()
    return {name: value for name, value in record.items() if name not in OWN} | PUBLISHED
