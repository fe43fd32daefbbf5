"""The sentences of the fourth paper's reproduction, for numbers that are given."""

import numpy as np
import pytest

from vaefast.reproduce.barrett2022.findings import findings
from vaefast.reproduce.barrett2022.inside import ATTACKS
from vaefast.reproduce.barrett2022.measure import Measured
from vaefast.reproduce.barrett2022.run import Reproduction
from vaefast.reproduce.barrett2022.settings import RIVALS, Settings
from vaefast.reproduce.barrett2022.summary import larger

B, A = 8, len(ATTACKS)  # a sign test needs 6 to decide
SPREAD = 1 + np.linspace(-0.01, 0.01, B)


def model(plan, *, certified, attacked, elbo=100.0, error=0.03, damage=1.0, share=1.0):
    each = dict.fromkeys(("certified_fixed", "certified_two"), certified * SPREAD)
    each |= dict.fromkeys(("attacked_fixed", "attacked_two"), attacked * SPREAD)
    inside = {f"inside_{key}": np.full((A, B), share) for key in ("fixed", "two")}
    return Measured(
        plan=plan,
        elbo=elbo * SPREAD,
        error=np.full(B, error),
        constants=np.full(4, 1.0),
        norm=np.ones(B),
        theorem=0.8 * certified * SPREAD,
        published=0.2 * certified * SPREAD,
        inside_damage=damage * np.outer(np.ones(A), SPREAD),
        inside_length=np.full((A, B), 0.5),
        lengths=np.array([1.0, 2.0]),
        curve=np.full((2, B), share),
        curve_two=np.full((2, B), share),
        promised=np.full((2, B), 0.5),
        **each,
        **inside,
    )


@pytest.fixture
def made():
    """Models whose margins and likelihood follow from the sign of ``trend``."""

    def make(*, trend=1, standard=0.5, over=2.0, share=1.0, rival=0.6):
        settings = Settings("made-up", constants=(5.0, 10.0), std_norms=(0.2, 1.0), radii=(0.5,))
        models = []
        for plan in settings.plans:
            if plan.group == "standard":
                models.append(model(plan, certified=0.0, attacked=standard, elbo=500.0))
                continue
            size = plan.level**-trend if plan.group != "radius" else 0.51
            numbers = {"certified": size, "attacked": over * size, "share": share}
            models.append(model(plan, **numbers, elbo=20.0 * plan.level**trend))
        rivals = [settings.rival(group, 2.0) for group in RIVALS]
        models += [model(p, certified=0.0, attacked=rival, damage=3.0, error=0.033) for p in rivals]
        return Reproduction(settings, "made-up", models, dict.fromkeys(RIVALS, 2))

    return make


def test_where_the_paper_holds(made):
    text = " ".join(findings(made(standard=0.1)))
    assert "Of two draws, the certified margin lies above the margin that an attack leaves" in text
    assert text.count("at 0 of 40 points; its median share of that margin is 0.50") == 2
    assert "of two draws are 0.200 to 0.100; Theorem 2 alone certifies 0.160 to 0.080" in text
    assert "correlation of L with the certified margin: -1.00" in text
    assert "(0.10 in the median) for 2 of 2 constants and smaller ones for 0" in text
    assert "300 nats higher" in text
    assert f"(at least 0.5049) after training; {A} attacks within it leave at least 100 %" in text
    assert f"break 0 of {2 * A * B} events" in text
    assert "0.0330 to 0.0330, at most 10 % off" in text
    assert "against mixup, β = 2 the Lipschitz VAE's margins under attack are larger" in text
    assert text.split("Of the published claims")[1].count("holds") == 6
    assert "does not" not in text


def test_where_it_does_not(made):
    text = " ".join(findings(made(trend=-1, over=0.9, share=0.3, rival=5.0)))
    assert text.count("at 40 of 40 points") == 2
    assert f"break {2 * A * B} of {2 * A * B} events" in text
    assert "margins under attack are smaller (0.46 against 5.00 in the median)" in text
    claims = text.split("Of the published claims")[1]
    assert claims.count("does not hold") == 5
    assert "larger than the standard VAE's: holds" in claims


def test_what_no_attack_broke(made):
    found = made(standard=np.inf, rival=np.inf)
    text = " ".join(findings(found))
    assert "the standard VAE (more than 6 in the median) for 0 of 2 constants" in text
    assert "against more than 6 in the median" in text
    assert "larger than the standard VAE's: does not hold" in text


def test_margins_compare_by_their_signs():
    ones = np.ones(6)
    assert larger(2 * ones, ones) == 1
    assert larger(ones, np.inf * ones) == -1
    assert larger(ones[:5], 2 * ones[:5]) == 0  # too few
    assert larger(ones, ones) == 0
    assert larger(np.array([2.0, 2, 2, 0, 0, 0]), ones) == 0
