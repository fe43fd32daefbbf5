"""The headline says what the numbers say."""

from vaefast.report.aggregates import aggregate
from vaefast.report.findings import findings, headline_attack, tiles


def flat(numbers):
    return " ".join(findings(numbers))


def test_the_headline_attack_is_the_middle_one():
    attacks = {str(eps): {"attack": "latent", "eps": eps} for eps in (0.2, 0.05, 0.1)}
    assert headline_attack({"attacks": attacks}, "latent")["eps"] == 0.1


def test_sentences_follow_the_numbers(made_up_audit):
    numbers = aggregate(made_up_audit())
    latent = headline_attack(numbers, "latent")
    numbers["clean"]["msssim_resampled"]["mean"] = 0.9
    latent["msssim"]["mean"], latent["msssim_defended"]["mean"] = 0.4, 0.7
    assert "lowers the similarity of the reconstruction from 0.90 to 0.40" in flat(numbers)
    assert "The HMC defence raises it to 0.70 (not attacked adaptively)" in flat(numbers)
    latent["msssim_defended"]["mean"] = 0.3
    assert "The HMC defence lowers it to 0.30" in flat(numbers)


def test_a_table_is_told_by_distances(made_up_audit):
    numbers = aggregate(made_up_audit(table=True))
    latent = headline_attack(numbers, "latent")
    numbers["clean"]["distance_resampled"]["mean"] = 12.0
    latent["distance"]["mean"], latent["distance_defended"]["mean"] = 40.0, 40.2
    assert "changes no entry by more than 0.1 raises the distance of the" in flat(numbers)
    assert "from 12.0 to 40.0 (ℓ2" in flat(numbers)
    assert "The HMC defence leaves it at 40.2" in flat(numbers)  # within one percent
    assert tiles(numbers)[0].value == "40.0 → 40.2"


def test_a_correlation_is_a_finding_only_where_it_is_one(made_up_audit):
    numbers = aggregate(made_up_audit())
    damage = headline_attack(numbers, "max_damage")
    for rho, p_value, words in (
        (-0.6, 0.001, "larger margin lose less"),
        (0.6, 0.001, "against expectation"),
        (-0.6, 0.3, "does not tell"),
    ):
        damage["spearman_margin_degradation"], damage["spearman_p_value"] = rho, p_value
        assert words in flat(numbers)


def test_a_model_that_shows_nothing_is_called_so(made_up_audit):
    numbers = aggregate(made_up_audit())
    numbers["variance_explained"] = 0.05
    assert "easily robust" in flat(numbers)
    numbers["variance_explained"] = 0.9
    assert "easily robust" not in flat(numbers)


def test_tiles_without_labels_have_no_accuracy(made_up_audit):
    with_labels, without = (tiles(aggregate(made_up_audit(labels=flag))) for flag in (True, False))
    assert len(with_labels) == len(without) + 1
    for tile in with_labels:
        if "defence" in tile.label:
            assert "not attacked adaptively" in tile.label
