"""The figures of this reproduction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from vaefast.report.charts import Chart
from vaefast.report.figures import Line, radius_plot, scatter_plot
from vaefast.reproduce.barrett2022.measure import Measured
from vaefast.reproduce.barrett2022.run import Reproduction
from vaefast.reproduce.barrett2022.summary import above, capped
from vaefast.reproduce.barrett2022.theorems import promise_anywhere
from vaefast.reproduce.numbers import Estimate, estimate

__all__ = ["charts"]

FINE = 25  # lengths of a certified curve
Number = Callable[[Measured], Estimate]


def charts(found: Reproduction) -> list[Chart]:
    """In the order of the page."""
    return [
        _margins(found, "constant", "fixed", "Margins of the fixed centre", "L"),
        _margins(found, "constant", "two", "Margins of two draws", "L"),
        _gain(found),
        _margins(found, "std", "two", "Margins of two draws, L fixed", "‖σ‖₂"),
        _dots(found, "fixed"),
        _promise(found),
        _rivals(found),
    ]


def _margins(found: Reproduction, group: str, event: str, title: str, level: str) -> Chart:
    s = found.settings
    shown: dict[str, Number] = {
        "attack, mean": lambda m: estimate(capped(m, event, s)),
        "attack, smallest": lambda m: Estimate(float(capped(m, event, s).min()), math.nan),
        "certified": lambda m: estimate(getattr(m, f"certified_{event}")),
    }
    models = found.of(group)
    lines = [_line(label, models, number) for label, number in shown.items()]
    name = f"barrett-{group}-{event}"
    svg = radius_plot(name, lines, x_label=level, y_label="margin, ℓ2", bounded=False)
    ends = "; ".join(f"{line.label} {line.y[0]:.3g} to {line.y[-1]:.3g}" for line in lines)
    caption = f"From {level} = {models[0].plan.level:g} to {models[-1].plan.level:g}: {ends}."
    return Chart(title, svg, caption, tuple(line.label for line in lines))


def _gain(found: Reproduction) -> Chart:
    models = found.of("constant")
    line = _line("", models, lambda m: estimate(m.elbo - models[0].elbo))
    label = "gain in the bound of log p, nats"
    svg = radius_plot("barrett-gain", [line], x_label="L", y_label=label, bounded=False)
    caption = (
        f"Over L = {models[0].plan.level:g}, whose bound is {models[0].elbo.mean():.0f} nats: up "
        f"to {line.y[-1]:.0f}. The standard VAE's gain is "
        f"{(found.standard.elbo - models[0].elbo).mean():.0f}."
    )
    return Chart("What a larger constant buys", svg, caption)


def _dots(found: Reproduction, event: str) -> Chart:
    pairs = [
        (getattr(m, f"certified_{event}"), capped(m, event, found.settings))
        for m in found.lipschitz
    ]
    x, y = (np.concatenate(values) for values in zip(*pairs, strict=True))
    svg = scatter_plot(
        f"barrett-dots-{event}",
        x,
        y,
        x_label="certified margin, ℓ2",
        y_label="margin that an attack leaves, ℓ2",
    )
    own = above(found.lipschitz, event)
    caption = (
        f"One dot an input of a Lipschitz VAE, {own.points} of them; at {own.exceeded} the "
        "certified margin is the larger."
    )
    return Chart("Certified and attacked, the fixed centre", svg, caption)


def _promise(found: Reproduction) -> Chart:
    model, s = found.target, found.settings
    x = np.linspace(0.0, 3.0 * model.plan.level, FINE)
    sure = promise_anywhere(model.constants, s.r, s.latent, x)
    lines = [
        _curve("attack, mean", model, [estimate(row) for row in model.curve_two]),
        _curve("attack, worst input", model, _exact(model.curve_two.min(1))),
        _bars("certified for any input", x.tolist(), _exact(sure)),
    ]
    label = "P(within r) of two draws"
    svg = radius_plot("barrett-promise", lines, x_label="‖δ‖₂", y_label=label)
    above = int((model.promised > model.curve).sum())
    caption = (
        f"{model.plan.title}: share of the draws within r after the strongest attack of each "
        f"length, and Theorem 1's lower bound, which is ½ at the specified radius. Of the fixed "
        f"centre the bound at x exceeds that share at {above} of {model.curve.size} points."
    )
    return Chart("Theorem 1's curve under attack", svg, caption, tuple(m.label for m in lines))


def _rivals(found: Reproduction) -> Chart:
    plain, *others = found.rivals
    best = max(others, key=lambda m: float(capped(m, "fixed", found.settings).mean()))
    shown = [found.target, plain, best]
    lines = [_curve(m.plan.title, m, [estimate(row) for row in m.curve]) for m in shown]
    label = "P(within r) of the fixed centre"
    svg = radius_plot("barrett-rivals", lines, x_label="‖δ‖₂", y_label=label)
    ends = "; ".join(f"{line.label} {line.y[0]:.2f} to {line.y[-1]:.2f}" for line in lines)
    caption = (
        "At equal reconstruction, mean over the inputs under the strongest attack of each length "
        f"(of the other ways of training the one with the largest margins): {ends}."
    )
    return Chart("Against training alone", svg, caption, tuple(line.label for line in lines))


def _exact(values: np.ndarray) -> list[Estimate]:
    return [Estimate(float(value), math.nan) for value in values]


def _curve(label: str, model: Measured, points: Sequence[Estimate]) -> Line:
    return _bars(label, model.lengths.tolist(), points)


def _line(label: str, models: Sequence[Measured], number: Number) -> Line:
    return _bars(label, [m.plan.level for m in models], [number(m) for m in models])


def _bars(label: str, x: list[float], points: Sequence[Estimate]) -> Line:
    """With bars of two standard errors."""
    y = [point.mean for point in points]
    width = [0.0 if math.isnan(p.std_error) else 2.0 * p.std_error for p in points]
    low, high = ([a + sign * b for a, b in zip(y, width, strict=True)] for sign in (-1, 1))
    return Line(label, x, y, low, high)
