"""The picture of what is certified, what first order says, and what an attack leaves."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from vaefast.audit.run import Audit
from vaefast.report.figures import Line, band_plot
from vaefast.report.words import number

__all__ = ["Chart", "ordering_chart"]

CURVES = {
    "certified": "margin_certified",
    "whitened": "margin_whitened",
    "empirical": "margin_empirical",
}


class Chart(NamedTuple):
    title: str
    svg: str
    caption: str  # also the text alternative
    legend: tuple[str, ...] = ()  # what the lines are, in the order of their colours


def ordering_chart(audit: Audit, found: dict[str, Any] | None, unit: str) -> Chart | None:
    """Shares of the searched inputs with at least a margin, by its three kinds.

    Args:
        found: of :func:`vaefast.audit.ordering.compared`.
        unit: of the margins.
    """
    if found is None or not found["broken"]:
        return None
    searched = ~(audit.values["failed"] | np.isnan(audit.values["margin_empirical"]))
    lines = []
    for label, name in CURVES.items():
        if name not in audit.values:
            continue
        margin = audit.values[name][searched]
        margin = np.sort(margin[~np.isnan(margin)])
        share = np.arange(len(margin), 0, -1) / max(len(margin), 1)
        shown = np.isfinite(margin)  # an input that no attack broke has no point on the axis
        x, y = np.append(0.0, margin[shown]), np.append(1.0, share[shown])
        lines.append(Line(label, x.tolist(), y.tolist(), y.tolist(), y.tolist()))
    svg = band_plot(
        "ordering", lines, x_label=f"margin, {unit} (ℓ2)", y_label="share of inputs at or above"
    )
    legend = tuple(line.label for line in lines)
    return Chart("Certified, whitened, empirical", svg, _caption(found), legend)


def _caption(found: dict[str, Any]) -> str:
    text = (
        f"The {found['inputs']} inputs that were searched for the smallest break; an attack broke "
        f"{found['broken']}. What is certified is at most the true margin, and that at most what "
        "the attack leaves, the empirical margin, whose search is not held to the box."
    )
    if "violated" not in found:
        return text
    if found["certified"] < found["inputs"]:
        text += f" Certified margins are of {found['certified']} of them."
    if found["violated"]:
        rows = ", ".join(map(str, found["violated"]))
        return f"{text} THIS IS CONTRADICTED on inputs {rows}: certified is above empirical."
    if found["ratio"] is None:
        return f"{text} Certified ≤ empirical on every one of them."
    return (
        f"{text} Certified ≤ empirical on every one of them; the median ratio is "
        f"{number(found['ratio'], 2)}."
    )
