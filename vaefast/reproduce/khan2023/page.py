"""report.html of this reproduction."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from vaefast.report.charts import Chart
from vaefast.report.figures import Line, radius_plot, scatter_plot
from vaefast.reproduce.khan2023.findings import findings
from vaefast.reproduce.khan2023.measure import Measured
from vaefast.reproduce.khan2023.run import Reproduction
from vaefast.reproduce.khan2023.settings import Settings
from vaefast.reproduce.numbers import Estimate, estimate, plus_minus
from vaefast.reproduce.shell import render_page, setting_rows

__all__ = ["render"]

OWN = (  # what the paper does not have, or where it is not known
    *("data", "attacked", "eps", "attack_steps", "restarts", "seed", "hidden", "latent"),
    *("learning_rate", "train_inputs", "batch_size"),
)


def render(found: Reproduction, command: str, origin: str) -> str:
    """The page as HTML text.

    Args:
        found: what to show.
        command: the command line that makes these numbers.
        origin: which sources made them, a sentence.
    """
    return render_page(
        "khan2023",
        found=found,
        findings=findings(found),
        charts=[
            _over_beta(found, "radius", "λ_max, median", _median),
            _over_beta(found, "entropy_max", "entropy over λ_max, nats", _mean),
            _over_beta(found, "strongest", "damage of the strongest attack, ℓ2", _mean),
            _over_beta(found, "error", "squared error without an attack", _mean),
            _curves(found),
            _scatter(found.plain),
        ],
        rows=[_row(model) for model in found.models],
        sizes=setting_rows(found.settings.record(), _published(found)),
        command=command,
        origin=origin,
    )


def _median(values: np.ndarray) -> Estimate:
    """With the standard error that a normal sample would have; NaN left out."""
    spread = estimate(values).std_error * math.sqrt(math.pi / 2)
    return Estimate(float(np.nanmedian(values)), spread)


def _mean(values: np.ndarray) -> Estimate:
    return estimate(values)


def _over_beta(
    found: Reproduction, key: str, label: str, average: Callable[[np.ndarray], Estimate]
) -> Chart:
    """Of the β-VAEs over log₁₀ β, with mixup's as a line across."""
    x = [math.log10(model.plan.beta) for model in found.raised]
    own = [average(getattr(model, key)) for model in found.raised]
    mix = [average(getattr(found.mixup, key))] * 2
    lines = [_line("β-VAE", x, own), _line("mixup at β = 1", [x[0], x[-1]], mix)]
    svg = radius_plot(f"khan-{key}", lines, x_label="log₁₀ β", y_label=label, bounded=False)
    ends = f"{own[0].mean:.3g} at β = {found.raised[0].plan.beta:g}"
    ends += f", {own[-1].mean:.3g} at β = {found.raised[-1].plan.beta:g}; mixup {mix[0].mean:.3g}"
    caption = f"{label[0].upper()}{label[1:]}, bars of two standard errors over the inputs: {ends}."
    return Chart(label, svg, caption, tuple(line.label for line in lines))


def _line(label: str, x: list[float], points: list[Estimate]) -> Line:
    y = [point.mean for point in points]
    width = [0.0 if math.isnan(p.std_error) else 2.0 * p.std_error for p in points]
    low, high = ([a + sign * b for a, b in zip(y, width, strict=True)] for sign in (-1, 1))
    return Line(label, x, y, low, high)


def _curves(found: Reproduction) -> Chart:
    """Error along the top direction, of the smallest β, of 1, and of mixup."""
    x = np.log10(found.plain.scales).tolist()
    chosen = [found.raised[0], found.plain, found.mixup]
    lines = []
    for model in chosen:
        y = model.curves[0].tolist()
        lines.append(Line(model.plan.title, x, y, y, y))
    label = "squared error of the reconstruction"
    svg = radius_plot("khan-curves", lines, x_label="log₁₀ s", y_label=label, bounded=False)
    ends = "; ".join(f"{line.label} {line.y[-1]:.3g}" for line in lines)
    caption = f"At x + s·λ₁·v₁, mean over the inputs, as published. At s = 10: {ends}."
    return Chart("Along the top direction", svg, caption, tuple(line.label for line in lines))


def _scatter(model: Measured) -> Chart:
    radius = model.radius[: len(model.strongest)]
    label = "damage of the strongest attack, ℓ2"
    svg = scatter_plot("khan-scatter", radius, model.strongest, x_label="λ_max", y_label=label)
    caption = (
        f"One dot an input, {model.plan.title}: its score, and the damage of the attack on it."
    )
    return Chart("Score and damage", svg, caption)


def _row(model: Measured) -> list[str]:
    return [
        model.plan.title,
        f"{model.loss:.1f}",
        plus_minus(_median(model.radius), 1.0, 3),
        plus_minus(estimate(model.entropy_max), 1.0, 2),
        plus_minus(estimate(model.entropy_density), 1.0, 2),
        plus_minus(estimate(model.error), 1.0, 4),
        plus_minus(estimate(model.along), 1.0, 2),
        plus_minus(estimate(model.strongest), 1.0, 2),
    ]


def _published(found: Reproduction) -> dict[str, Any]:
    record = Settings.of_data(found.settings.data, full=True).record()
    return {name: value for name, value in record.items() if name not in OWN}
