"""The terms of the total-variation bound along the chain, as a plot for a report."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from vaefast.hmc import Estimate, TVBound
from vaefast.hmc.log_marginal import UPPER
from vaefast.report.charts import Chart
from vaefast.report.figures import Line, radius_plot

__all__ = ["tv_bound_chart"]

VACUOUS = ", which says nothing here: no total variation is above 1"
WIDTH = 1.96  # standard errors on either side, of a 95 % interval


def tv_bound_chart(bound: TVBound, name: str = "tv-bound") -> Chart | None:
    """KL[q^(t)(z|x^a) ‖ p(z|x^a)] between its bounds against t, means over the inputs.

    Args:
        bound: of :func:`vaefast.hmc.tv_bound`; rows that failed are left out.
        name: of the plot, unique on its page.

    Returns:
        The chart, or None where every row failed. Its caption has the other terms.
    """
    good = ~bound.failed
    if not bool(good.any()):
        return None
    upper, kind = bound.start[1], bound.start[1].kind
    lines = [
        _line(_label(kind), bound.at, [upper] * len(bound.at), good),
        _line("critic, lower bound", bound.at, list(bound.critic), good),
    ]
    svg = radius_plot(
        name, lines, x_label="transitions t", y_label="KL to the posterior, nats", bounded=False
    )
    terms = [("amortisation gap at the reference", bound.gap[1]), ("attack term", bound.attack)]
    others = ", ".join(f"{what} {_words(each, good)}" for what, each in terms)
    caption = (
        f"KL[q_t(z|x^a) || p(z|x^a)] of {int(good.sum())} attacked inputs: {_words(upper, good)} "
        "at t = 0, which bounds all later ones (data processing inequality); a critic's lower "
        f"bound {_words(bound.critic[0], good)} at t = 0, {_words(bound.critic[-1], good)} at "
        f"t = {bound.at[-1]}. In nats: {others}. Total variation at most "
        f"{_words(bound.bound, good)}{VACUOUS if _mean(bound.bound, good)[0] > 1.0 else ''}. Means "
        "over the inputs, bars: 95 % interval of the estimate."
    )
    return Chart("Distance of the defended posterior", svg, caption, tuple(x.label for x in lines))


def _label(kind: str) -> str:
    """The value at t = 0 is, later, an upper bound or an estimate of one."""
    return "upper bound at every t" if kind == UPPER else "estimate at 0, later of an upper bound"


def _mean(estimate: Estimate, good: Tensor) -> tuple[float, float]:
    """Over the rows, and its standard error."""
    error = estimate.std_error[good].square().sum().sqrt() / good.sum()
    return float(estimate.value[good].mean()), float(error)


def _line(label: str, at: tuple[int, ...], each: list[Estimate], good: Tensor) -> Line:
    value, error = np.array([_mean(estimate, good) for estimate in each]).T
    low, high = np.subtract(value, WIDTH * error), np.add(value, WIDTH * error)
    return Line(label, list(at), value.tolist(), low.tolist(), high.tolist())


def _words(estimate: Estimate, good: Tensor) -> str:
    value, error = _mean(estimate, good)
    return f"{value:.3g} ± {error:.2g} ({estimate.kind})"
