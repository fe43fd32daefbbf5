"""The paragraph, for numbers of every kind."""

from vaefast.reproduce.kuzina2022.findings import findings

HOLDS = {
    ("none", "none"): (0.95, 0.98),
    ("none", "hmc"): (0.95, 0.98),
    ("published", "none"): (0.4, 0.2),
    ("published", "hmc"): (0.8, 0.8),
    ("oblivious", "none"): (0.3, 0.1),
    ("oblivious", "hmc"): (0.75, 0.6),
    ("adaptive", "hmc"): (0.6, 0.5),
}


def test_the_paragraph_where_the_paper_holds(made_up):
    text = " ".join(findings(made_up(HOLDS)))
    assert "Without a defence the published attack lowers MSSSIM in 2 of 2 cells" in text
    assert "HMC against the published attack raises MSSSIM in 2 of 2 cells (by 0.400)" in text
    assert "raises adversarial accuracy in 2 of 2 cells (by 60 points)" in text
    assert "Under attack the chains accept 90 to 90 %" in text
    assert "a sample of q(z|x) keeps the class of its mean in 98 %" in text
    assert "Against such a sample HMC raises adversarial accuracy of a sample in 2 of 2" in text
    assert "Without an attack HMC shows no difference in MSSSIM" in text
    assert "HMC raises MSSSIM under the published attack: holds" in text
    assert "costs nothing: no loss was found" in text
    assert "knows what it attacks, with HMC or without: image holds, class holds." in text


def test_the_aim_and_the_knowledge_are_told_apart(made_up):
    text = " ".join(findings(made_up(HOLDS)))
    for part in (
        "Aimed at the image and knowing nothing of HMC, the attack on no defence, against the "
        "published attack's strongest point, lowers MSSSIM in 2 of 2 cells (by 0.100)",
        "HMC against it raises MSSSIM in 2 of 2 cells (by 0.450)",
        "Carried over to HMC it, against the published attack's strongest point there, lowers "
        "MSSSIM in 2 of 2 cells (by 0.050)",
        "With this aim, knowing HMC (the attack through it) moreover lowers MSSSIM in 2 of 2 cells "
        "(by 0.150)",
        "the aim changes MSSSIM under HMC by -0.050 ± 0.000 and the knowledge by -0.150 ± 0.000.",
        "adversarial accuracy of a sample under HMC by -20 ± 0 points and the knowledge by -10 ± 0",
        "HMC under the attack through it, against no defence under the attack with this aim, "
        "raises MSSSIM in 2 of 2 cells (by 0.300)",
    ):
        assert part in text, part


def test_the_mean_over_the_cells_has_the_error_of_the_references(made_up):
    found = made_up(HOLDS)
    cells = [c for c in found.cells if (c.attack, c.defence) == ("oblivious-image", "hmc")]
    for cell, shift in zip(cells, (0.1, -0.1), strict=True):  # of the cells, not of references
        cell.msssim[:] += shift
    assert "under HMC by -0.050 ± 0.000 and" in " ".join(findings(found))
    cells[0].msssim[0] += 0.2
    cells[1].msssim[0] += 0.2
    assert "under HMC by -0.000 ± 0.159 and" in " ".join(findings(found))


def test_the_paragraph_where_it_does_not(made_up):
    bad = HOLDS | {
        ("published", "hmc"): (0.3, 0.2),
        ("adaptive", "hmc"): (0.35, 0.1),
        ("none", "hmc"): (0.7, 0.5),
    }
    text = " ".join(findings(made_up(bad)))
    assert "HMC against the published attack lowers MSSSIM in 2 of 2 cells (by 0.100)" in text
    assert "Without an attack HMC lowers MSSSIM in 1 of 1 model (by 0.250)" in text
    assert "HMC raises MSSSIM under the published attack: does not hold" in text
    assert "a sample against a mean, undecided, sample against sample undecided" in text
    assert "costs nothing: a loss in 2 of 2" in text


def test_an_adaptive_attack_that_is_weaker_is_said_to_be(made_up):
    text = " ".join(findings(made_up(HOLDS | {("adaptive", "hmc"): (0.9, 0.9)})))
    assert "(the attack through it) moreover raises MSSSIM in 2 of 2 cells (by 0.150)" in text


def test_training_alone_is_compared_with_the_vae(made_up):
    text = " ".join(findings(made_up(HOLDS, models=("vae", "beta-5"))))
    assert "Training alone (beta-5 against vae, no defence) shows no difference in MSSSIM" in text
    assert "Training alone" not in " ".join(findings(made_up(HOLDS, models=("beta-5",))))
