"""The sentences, for numbers of every kind."""

import numpy as np
import pytest
from scipy import stats

from vaefast.reproduce.findings import Difference, difference, findings, sentence, verdict

UP, DOWN, SAME = (Difference(n, m, 0.01) for n, m in (("a", 0.2), ("b", -0.05), ("c", 0.001)))
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
    assert sentence("HMC", "msssim", found) == text


def test_accuracy_is_said_in_points():
    found = [UP, Difference("e", 0.4, 0.1)]
    assert sentence("HMC", "same", found, "model") == (
        "HMC raises adversarial accuracy in 2 of 2 models (by 20 to 40 points)."
    )


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ([UP, UP], "holds"),
        ([UP, SAME], "holds in part"),
        ([UP, DOWN], "does not hold"),
        ([DOWN, SAME], "does not hold"),
        ([SAME, SAME], "undecided"),
        ([UNKNOWN], "undecided"),
        ([], "undecided"),
    ],
)
def test_verdicts(found, text):
    assert verdict(found) == text


HOLDS = {
    ("none", "none"): (0.95, 0.98),
    ("none", "hmc"): (0.95, 0.98),
    ("published", "none"): (0.4, 0.2),
    ("published", "hmc"): (0.8, 0.8),
    ("adaptive", "hmc"): (0.6, 0.5),
}


def test_the_paragraph_where_the_paper_holds(made_up):
    text = " ".join(findings(made_up(HOLDS)))
    assert "Without a defence the published attack lowers MSSSIM in 2 of 2 cells" in text
    assert "HMC against the published attack raises MSSSIM in 2 of 2 cells (by 0.400)" in text
    assert "raises adversarial accuracy in 2 of 2 cells (by 60 points)" in text
    assert (
        "Aimed at the image, the adaptive attack on HMC lowers MSSSIM in 2 of 2 cells (by 0.200)"
        in text
    )
    assert "Aimed at the class, the adaptive attack on HMC lowers adversarial accuracy" in text
    assert "It takes back 50 % of the MSSSIM that HMC had gained in the 2 cells" in text
    assert "HMC attacked adaptively, against no defence, raises MSSSIM in 2 of 2 cells" in text
    assert "Without an attack HMC shows no difference in MSSSIM" in text
    assert "HMC raises MSSSIM under the published attack: holds" in text
    assert "costs nothing: no loss was found" in text


def test_the_paragraph_where_it_does_not(made_up):
    bad = HOLDS | {
        ("published", "hmc"): (0.3, 0.2),
        ("adaptive", "hmc"): (0.35, 0.1),
        ("none", "hmc"): (0.7, 0.5),
    }
    text = " ".join(findings(made_up(bad)))
    assert "HMC against the published attack lowers MSSSIM in 2 of 2 cells (by 0.100)" in text
    assert "takes back" not in text
    assert "Without an attack HMC lowers MSSSIM in 1 of 1 model (by 0.250)" in text
    assert "HMC raises MSSSIM under the published attack: does not hold" in text
    assert "HMC raises adversarial accuracy: undecided" in text
    assert "costs nothing: does not hold" in text


def test_an_adaptive_attack_that_is_weaker_is_said_to_be(made_up):
    text = " ".join(findings(made_up(HOLDS | {("adaptive", "hmc"): (0.9, 0.9)})))
    assert "Aimed at the image, the adaptive attack on HMC raises MSSSIM in 2 of 2 cells" in text
    assert "It adds 25 % of the MSSSIM" in text


def test_training_alone_is_compared_with_the_vae(made_up):
    text = " ".join(findings(made_up(HOLDS, models=("vae", "beta-5"))))
    assert "Training alone (beta-5 against vae, no defence) shows no difference in MSSSIM" in text
    assert "Training alone" not in " ".join(findings(made_up(HOLDS, models=("beta-5",))))
