"""The total-variation bound along the chain, for a few references of one model."""

from __future__ import annotations

from typing import Any, NamedTuple

from vaefast import hmc
from vaefast.audit import Stages
from vaefast.report.charts import Chart
from vaefast.report.tv_bound import tv_bound_chart
from vaefast.reproduce.kuzina2022.grid import Grid
from vaefast.reproduce.kuzina2022.settings import Settings
from vaefast.reproduce.numbers import csv_text, number
from vaefast.reproduce.store import Part

__all__ = ["Bound", "bound_of"]

LADDER: dict[str, Any] = {"temperatures": 60, "chains": 8, "leapfrog": 10}
LONG: dict[str, Any] = {"steps": 60, "warmup": 40, "critic_chains": 48}


class Bound(NamedTuple):
    """What the report shows of it.

    Args:
        chart: None where every reference failed.
        numbers: one record per reference, quantity and number of transitions.
    """

    chart: Chart | None
    numbers: list[dict[str, Any]]

    def as_csv(self) -> str:
        """Header and rows; the same bytes for the same numbers."""
        columns = list(self.numbers[0])
        return csv_text(columns, ([_said(r[name]) for name in columns] for r in self.numbers))


def bound_of(grid: Grid, settings: Settings, stages: Stages) -> Bound | None:
    """Of the first references under the published attack at the largest radius; None of none."""
    if not settings.bound_references:
        return None
    subject, radius = grid.subject, max(settings.radii)
    name = f"{subject.name}/tv-bound-{radius:g}"
    part = grid.store.read(name)
    if part is None:
        x_ref = subject.x[: settings.bound_references]
        x_adv = grid.published(radius)[: settings.bound_references, 0]
        at = sorted({10, settings.transitions})
        with stages.stage(f"bound    {subject.training.title}, {radius:g}", len(x_ref)):
            found = hmc.tv_bound(
                subject.vae, x_ref, x_adv, at=at, seed=settings.seed, **LADDER, **LONG
            )
        chart = tv_bound_chart(found)
        facts = {"chart": chart, "numbers": found.numbers()}
        part = grid.store.write(name, {"failed": found.failed}, facts)
    return _read(part)


def _said(value: Any) -> str:
    if value is None:
        return ""
    return number(value) if isinstance(value, float) else str(value)


def _read(part: Part) -> Bound:
    chart = part.facts["chart"]
    return Bound(None if chart is None else Chart(*chart), part.facts["numbers"])
