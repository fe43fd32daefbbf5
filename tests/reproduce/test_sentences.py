"""The sentences, for numbers of every kind."""

import numpy as np
import pytest
from scipy import stats

from vaefast.reproduce.sentences import Difference, Metric, difference, sentence, verdict

UP, DOWN, SAME = (Difference(n, m, 0.01) for n, m in (("a", 0.2), ("b", -0.05), ("c", 0.001)))
MSSSIM = Metric("MSSSIM")
UNKNOWN = Difference("d", 0.3, float("nan"))


def test_a_difference_is_paired():
    """The references differ by far more than the effect, which is plain all the same."""
    before = np.array([0.1, 0.5, 0.9, 0.3])
    after = before + np.array([0.02, 0.03, 0.02, 0.03])
    found = difference("a", after, before)
    interval = stats.ttest_rel(after, before).confidence_interval(0.95)
    np.testing.assert_allclose(found.mean + found.error, interval.high, rtol=1e-9)
    np.testing.assert_allclose(found.mean - found.error, interval.low, rtol=1e-9)
    assert found.sign == 1
    assert difference("a", before, after).sign == -1


def test_a_difference_leaves_out_what_failed():
    found = difference("a", np.array([1.0, np.nan, 1.0]), np.array([0.0, 0.0, 0.5]))
    assert found.mean == 0.75
    one = difference("a", np.array([1.0, np.nan]), np.array([0.0, 0.0]))
    assert (one.mean, one.sign) == (1.0, 0)
    assert np.isnan(one.error)
    none = difference("a", np.array([np.nan]), np.array([0.0]))
    assert np.isnan(none.mean)
    assert none.sign == 0


def test_without_spread_any_difference_counts_and_none_does_not():
    ones = np.ones(3)
    assert difference("a", ones, 0 * ones).sign == 1
    assert difference("a", ones, ones).sign == 0


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ([UP, UP], "HMC raises MSSSIM in 2 of 2 cells (by 0.200)."),
        ([UP], "HMC raises MSSSIM in 1 of 1 cell (by 0.200)."),
        ([DOWN], "HMC lowers MSSSIM in 1 of 1 cell (by 0.050)."),
        (
            [UP, Difference("e", 0.3, 0.1), SAME],
            "HMC raises MSSSIM in 2 of 3 cells (by 0.200 to 0.300) and shows no difference beyond "
            "the error in 1.",
        ),
        (
            [UP, DOWN, SAME],
            "HMC raises MSSSIM in 1 of 3 cells (by 0.200), lowers it in 1 (by 0.050; b) and shows "
            "no difference beyond the error in 1.",
        ),
        (
            [SAME, UNKNOWN],
            "HMC shows no difference in MSSSIM beyond the error in any of 2 cells (at most 0.300).",
        ),
        (
            [Difference("a", float("nan"), float("nan"))],
            "HMC shows no difference in MSSSIM beyond the error in any of 1 cell (at most "
            "unknown).",
        ),
    ],
)
def test_sentences(found, text):
    assert sentence("HMC", MSSSIM, found) == text


def test_accuracy_is_said_in_points():
    found = [UP, Difference("e", 0.4, 0.1)]
    assert sentence("HMC", Metric("adversarial accuracy", points=True), found, "model") == (
        "HMC raises adversarial accuracy in 2 of 2 models (by 20 to 40 points)."
    )


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ([UP, UP], "holds"),
        ([UP, SAME], "holds in part"),
        ([UP, DOWN], "mixed"),
        ([DOWN, SAME], "does not hold"),
        ([SAME, SAME], "undecided"),
        ([UNKNOWN], "undecided"),
        ([], "undecided"),
    ],
)
def test_verdicts(found, text):
    assert verdict(found) == text
