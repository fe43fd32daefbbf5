"""report.html of this reproduction."""

from __future__ import annotations

import math

import numpy as np

from vaefast.report.charts import Chart
from vaefast.report.figures import Line, radius_plot, scatter_plot
from vaefast.reproduce.camuto2021.findings import findings
from vaefast.reproduce.camuto2021.measure import Measured
from vaefast.reproduce.camuto2021.run import Reproduction
from vaefast.reproduce.numbers import estimate, plus_minus
from vaefast.reproduce.shell import render_page, setting_rows

__all__ = ["render"]


def render(found: Reproduction, command: str, origin: str) -> str:
    """The page as HTML text.

    Args:
        found: what to show.
        command: the command line that makes these numbers.
        origin: which sources made them, a sentence.
    """
    return render_page(
        "camuto2021",
        found=found,
        findings=findings(found),
        charts=[
            _over_beta(found, "std", "min σ"),
            _over_beta(found, "jacobian", "‖J_μ‖_F"),
            _over_beta(found, "first_order", "published bound, ℓ2"),
            *(_bound(model) for model in found.models),
            *(_degradation(model) for model in found.models),
        ],
        rows=[_row(model) for model in found.models],
        sizes=setting_rows(found.settings.record(), {}),
        command=command,
        origin=origin,
    )


def _over_beta(found: Reproduction, key: str, label: str) -> Chart:
    x = [math.log10(model.plan.beta) for model in found.models]
    points = [estimate(getattr(model, key)) for model in found.models]
    y = [point.mean for point in points]
    width = [0.0 if math.isnan(p.std_error) else 2.0 * p.std_error for p in points]
    low, high = ([a + sign * b for a, b in zip(y, width, strict=True)] for sign in (-1, 1))
    line = Line("β-VAE", x, y, low, high)
    svg = radius_plot(f"camuto-{key}", [line], x_label="log₁₀ β", y_label=label, bounded=False)
    caption = f"Mean over the inputs, bars of two standard errors: {y[0]:.3g} to {y[-1]:.3g}."
    return Chart(label, svg, caption)


def _bound(model: Measured) -> Chart:
    known = model.known
    svg = scatter_plot(
        f"camuto-bound-{model.plan.name.replace('.', '_')}",
        model.first_order[known],
        model.attacked[known],
        x_label="published bound, ℓ2",
        y_label="margin that an attack leaves, ℓ2",
    )
    above = int((model.first_order[known] > model.attacked[known]).sum())
    caption = f"One dot an input, {int(known.sum())} of them; at {above} the bound is the larger."
    return Chart(f"{model.plan.title}: bound and margin", svg, caption)


def _degradation(model: Measured) -> Chart:
    good = np.isfinite(model.attacked) & np.isfinite(model.degradation)
    svg = scatter_plot(
        f"camuto-degradation-{model.plan.name.replace('.', '_')}",
        model.attacked[good],
        model.degradation[good],
        x_label="margin that an attack leaves, ℓ2",
        y_label="relative loss of log-likelihood",
    )
    caption = f"One dot an input, {int(good.sum())} of them."
    return Chart(f"{model.plan.title}: margin and degradation", svg, caption)


def _row(model: Measured) -> list[str]:
    broken = np.isfinite(model.attacked)
    middle = f"{np.median(model.attacked[broken]):.2f}" if broken.any() else "–"
    return [
        model.plan.title,
        f"{model.loss:.1f}",
        plus_minus(estimate(model.std), 1.0, 3),
        plus_minus(estimate(model.jacobian), 1.0, 2),
        plus_minus(estimate(model.first_order), 1.0, 3),
        plus_minus(estimate(model.whitened), 1.0, 3),
        f"{middle} ({int(broken.sum())})",
        plus_minus(estimate(model.degradation), 1.0, 2),
    ]
