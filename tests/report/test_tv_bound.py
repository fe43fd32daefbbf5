"""The chart of the total-variation bound: what its curves, caption and kinds say."""

import torch

from vaefast.hmc import Estimate, LogMarginal, TVBound
from vaefast.report.tv_bound import tv_bound_chart


def estimate(*values, kind="estimate"):
    return Estimate(torch.tensor(values).double(), torch.full((len(values),), 0.1).double(), kind)


def found(failed=(False, False)):
    evidence = LogMarginal(
        estimate(-9.0, -8.0, kind="lower bound"),
        estimate(-8.9, -7.9),
        estimate(-12.0, -10.0),
        torch.ones(2),
        torch.ones(2),
        torch.tensor(failed),
        "bits",
    )
    critic = estimate(2.0, 1.0, kind="lower bound"), estimate(0.1, 0.0, kind="lower bound")
    pair = estimate(3.0, 2.0, kind="lower bound"), estimate(3.1, 2.1, kind="upper bound")
    return TVBound(
        (0, 20),
        evidence,
        evidence,
        pair,
        critic,
        pair,
        estimate(0.5, 0.3),
        estimate(2.0, 1.8),
        torch.tensor(failed),
    )


def test_the_caption_has_every_number_with_its_kind():
    chart = tv_bound_chart(found())
    assert "2.6 ± 0.071 (upper bound) at t = 0" in chart.caption
    assert (
        "1.5 ± 0.071 (lower bound) at t = 0, 0.05 ± 0.071 (lower bound) at t = 20" in chart.caption
    )
    assert "attack term 0.4 ± 0.071 (estimate)" in chart.caption
    assert chart.legend == ("upper bound at every t", "critic, lower bound")
    assert chart.svg.startswith("<svg")


def test_failed_rows_are_left_out():
    chart = tv_bound_chart(found((False, True)))
    assert "of 1 attacked inputs: 3.1 ± 0.1 (upper bound)" in chart.caption
    assert tv_bound_chart(found((True, True))) is None
