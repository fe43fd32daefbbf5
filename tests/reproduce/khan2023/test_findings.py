"""The sentences of the third paper's reproduction, for numbers that are given."""

import numpy as np
import pytest

from vaefast.reproduce.khan2023.findings import findings, rank_correlation
from vaefast.reproduce.khan2023.measure import Measured
from vaefast.reproduce.khan2023.run import Reproduction
from vaefast.reproduce.khan2023.settings import Settings

B = 6
SPREAD = np.linspace(-0.01, 0.01, B)


def model(plan, level, *, error):
    values = level * (1.0 + SPREAD)
    curves = np.full((5, 3), level)
    scales = np.array([0.1, 1.0, 10.0])
    return Measured(
        *(plan, 100.0, values, values, values, np.sqrt(values), error + SPREAD / 100),
        *(curves, scales, 0.9 * values, values),
    )


@pytest.fixture
def made():
    """β-VAEs with these levels of score and damage, and mixup's, and the errors of all."""

    def make(levels, errors):
        settings = Settings("made-up", betas=(0.1, 1.0, 10.0), inputs=B, attacked=B)
        pairs = zip(settings.plans, levels, errors, strict=True)
        models = [model(plan, level, error=error) for plan, level, error in pairs]
        return Reproduction(settings, "made-up", models)

    return make


def test_where_the_paper_holds(made):
    found = made([4.0, 2.0, 0.5, 1.0], [0.01, 0.02, 0.05, 0.03])
    assert rank_correlation(found.raised, lambda m: m.curves[0, -1]) == -1
    text = " ".join(findings(found))
    assert "the median λ_max: -1.00" in text
    assert "correlation of an input's λ_max with the damage" in text
    assert "90 to 90 % of the damage of the strongest attack" in text
    assert "At β = 1 mixup lowers λ_max by 1.000 (from 2.000)" in text
    assert "The smallest β with a damage as small is 10" in text
    assert "mixup's is better than (error 0.03000 against 0.05000)" in text
    assert text.count("holds") == 4
    assert "does not hold" not in text


def test_where_it_does_not(made):
    found = made([1.0, 2.0, 3.0, 4.0], [0.05, 0.04, 0.03, 0.06])
    text = " ".join(findings(found))
    assert "scores fall with β (correlation at most -0.9): does not hold" in text
    assert "At β = 1 mixup raises λ_max by 2.000" in text
    assert "mixup lowers λ_max and damage: does not hold" in text
    assert "The smallest β with a damage as small is 0.1" in text
    assert "as robust: does not hold" in text


def test_a_grid_that_mixup_beats(made):
    text = " ".join(findings(made([4.0, 2.0, 1.5, 1.0], [0.01, 0.02, 0.05, 0.03])))
    assert "No β of the grid reaches mixup's damage." in text
    assert text.endswith("robust: undecided, no β is.")
