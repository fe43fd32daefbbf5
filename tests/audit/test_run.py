"""One small audit, for real: every number is what its column says."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from vaefast import certify, metrics, models
from vaefast.audit import AuditSettings, Stages
from vaefast.audit import blocks as blocks_module
from vaefast.audit import run as audit
from vaefast.audit.blocks import by_blocks
from vaefast.audit.job import Job
from vaefast.audit.stages import sample_reconstruction, search, unchanged_radius
from vaefast.data import Dataset

SETTINGS = AuditSettings(
    inputs=6, eps=(0.1, 0.2), attack_steps=2, restarts=2, warmup=2, transitions=2, samples=50
)

BRIEF = replace(SETTINGS, inputs=2, eps=(0.1,), attack_steps=1, restarts=1)


@pytest.fixture(scope="module")
def vae():
    return models.MLPVAE((1, 8, 8), (16,), 3).eval()


@pytest.fixture(scope="module")
def images():
    x = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(30) % 2
    return Dataset("made-up", x[:20], y[:20], x[20:], y[20:], "a note")


def run(vae, images, settings=SETTINGS):
    with Stages() as stages:
        return audit(vae, images, settings, stages)


@pytest.fixture(scope="module")
def result(vae, images):
    return run(vae, images)


def test_every_column_has_a_value_per_input(result):
    table = result.table()
    assert {len(column.values) for column in table} == {6}
    assert not result.values["failed"].any()
    assert len({column.name for column in table}) == len(table)
    assert "a note" in result.notes


def test_attacks_keep_to_their_ball_and_box(result):
    for outcome in result.outcomes:
        x_adv, radius = outcome.result.x_adv, outcome.plan.radius
        delta = (x_adv - result.x).flatten(1)
        order = torch.inf if outcome.plan.norm == "linf" else 2
        assert (delta.norm(p=order, dim=1) <= radius * (1 + 1e-5)).all()
        assert x_adv.min() >= 0
        assert x_adv.max() <= 1
    l2 = [o.plan.radius for o in result.outcomes if o.plan.norm == "l2"]
    assert l2 == pytest.approx([0.1 * 8, 0.2 * 8])


def test_columns_are_what_they_say(result, vae):
    x = result.x
    error = (vae.reconstruct(x) - x).flatten(1).norm(dim=1).detach().numpy()
    assert result.values["reconstruction_error"] == pytest.approx(error)
    found = certify.margin(vae, x, result.r, method="whitened", samples=50)
    assert result.values["margin_whitened"] == pytest.approx(found.margin.numpy())
    sound = certify.margin(vae, x, result.r, method="local", samples=50)
    assert result.values["margin_certified"] == pytest.approx(sound.margin.numpy())
    assert (result.values["margin_certified"] <= result.values["margin_whitened"] + 1e-9).all()
    assert (result.values["margin_certified"] <= result.values["margin_empirical"]).all()
    for outcome in result.outcomes:
        similarity = metrics.msssim(result.reconstruction, outcome.defended).value.numpy()
        assert outcome.values["msssim_defended"] == pytest.approx(similarity)


def test_similarity_does_not_depend_on_the_range(images):
    a, b = images.x_train[:4], images.x_train[4:8]
    stretched = Job(None, 2 * a - 1, SETTINGS, None, -1.0, 1.0)
    found = stretched.compared(2 * a - 1, 2 * b - 1)
    expected = metrics.msssim(a, b).value
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    without = Job(None, a, SETTINGS, None, -np.inf, np.inf)
    assert without.measure == "distance"
    torch.testing.assert_close(without.compared(a, b), (a - b).double().flatten(1).norm(dim=1))


def test_attacks_keep_to_the_range_of_the_data(images):
    vae = models.MLPVAE((1, 8, 8), (8,), 2, likelihood="gaussian").eval()
    x = 2 * images.x_test - 1
    found = run(vae, images._replace(x_test=x, low=-1.0))
    lowest = min(o.result.x_adv.min().item() for o in found.outcomes)
    assert -1 <= lowest < 0


def test_the_same_seed_gives_the_same_numbers(result, vae, images):
    again = run(vae, images)
    for first, second in zip(result.table(), again.table(), strict=True):
        assert first.name == second.name
        assert np.array_equal(first.values, second.values)
    assert np.array_equal(result.eigenvalues, again.eigenvalues)


def test_a_bad_row_fails_alone(vae, images, result):
    x = images.x_test.clone()
    x[2, 0, 0, 0] = torch.nan
    spoilt = run(vae, images._replace(x_test=x))
    assert spoilt.values["failed"].tolist() == [False, False, True, False, False, False]
    rest = ~spoilt.values["failed"]
    for first, second in zip(spoilt.outcomes, result.outcomes, strict=True):
        assert first.values["failed"][2]
        msssim = second.values["msssim"][rest]
        assert first.values["msssim"][rest] == pytest.approx(msssim, abs=1e-4)
    assert any("1 of 6 rows failed" in note for note in spoilt.notes)


def test_without_labels_the_class_columns_are_absent(vae, images):
    bare = run(vae, images._replace(y_train=None, y_test=None), BRIEF)
    names = [column.name for column in bare.table()]
    assert not [name for name in names if "predicted" in name or name == "label"]
    assert any("without labels" in note for note in bare.notes)


def test_the_note_names_the_labels_that_are_missing(vae, images):
    for change, words in (
        ({"y_test": None}, "test inputs came without labels.* key y_test adds"),
        ({"y_train": None}, "training inputs came without labels.* key y adds"),
        ({"y_train": None, "y_test": None}, "data came without labels.* key y adds"),
    ):
        notes = " ".join(run(vae, images._replace(**change), BRIEF).notes)
        assert re.search(words, notes)


def test_the_margins_say_whether_the_std_was_held(images, result):
    fixed = run(models.MLPVAE((1, 8, 8), (16,), 3, fixed_std=0.5).eval(), images, BRIEF)
    assert result.guarantee is certify.Guarantee.FIRST_ORDER_STD_HELD
    assert fixed.guarantee is certify.Guarantee.FIRST_ORDER
    for found, held in ((result, True), (fixed, False)):
        (meaning,) = (c.meaning for c in found.table() if c.name == "margin_whitened")
        assert ("std held" in meaning) is held


def test_one_class_only_is_no_accuracy(vae, images):
    bare = run(vae, images._replace(y_train=torch.zeros(20, dtype=torch.int64)), BRIEF)
    assert not bare.has_labels


def test_more_inputs_than_there_are_is_told(vae, images):
    settings = replace(BRIEF, inputs=99)
    assert any("99 inputs were asked for" in n for n in run(vae, images, settings).notes)


def test_a_double_model_is_audited_in_double(images):
    double = models.MLPVAE((1, 8, 8), (8,), 2).double().eval()
    assert run(double, images, BRIEF).x.dtype == torch.float64


def test_a_half_model_is_refused(images):
    half = models.MLPVAE((1, 8, 8), (8,), 2).half().eval()
    with pytest.raises(TypeError, match="float32 or float64"):
        run(half, images)


def test_blocks_join_to_the_whole(monkeypatch, vae, images):
    x = images.x_test
    whole = sample_reconstruction(vae, x, 0, 1)
    monkeypatch.setattr(blocks_module, "BLOCK", 3)
    torch.testing.assert_close(sample_reconstruction(vae, x, 0, 1), whole)
    seen = []
    joined = by_blocks(lambda rows, index: {"x": x[rows], "i": index}, x, seen.append)
    assert torch.equal(joined["x"], x)
    assert joined["i"].tolist() == list(range(len(x)))
    assert sum(seen) == len(x)


def test_an_attack_in_blocks_is_the_attack_on_all(monkeypatch, vae, images):
    options = {"eps": 0.1, "steps": 2, "restarts": 1}

    def attacked(target):
        with Stages() as stages:
            job = Job(vae, images.x_test, BRIEF, stages)
            return search(job, "latent", "latent", options, 2, target)

    target = images.x_train[: len(images.x_test)]
    wholes = [attacked(None), attacked(target)]
    monkeypatch.setattr(blocks_module, "BLOCK", 3)
    for whole, joined in zip(wholes, [attacked(None), attacked(target)], strict=True):
        assert joined.history.shape == (3, len(images.x_test))
        torch.testing.assert_close(joined.history, whole.history)
        torch.testing.assert_close(joined.x_adv, whole.x_adv)


def test_unchanged_radius_holds_nine_tenths(vae, images):
    """With fresh samples about 90 % of the distances lie within it."""
    x = images.x_test
    r = unchanged_radius(vae, x, 0, draws=50)
    p = certify.robust_probability(vae, x, r, samples=2000).p.mean().item()
    assert p == pytest.approx(0.9, abs=0.05)


def test_a_convolutional_encoder_gets_certificates_of_the_first_inputs(images):
    """What they are, how many, and by which form; the others' rows are not failed."""
    vae = models.ConvVAE((1, 8, 8), channels=3, latent=3, seed=3).eval()
    settings = replace(BRIEF, inputs=4, certified=2, samples=200, r=3.0)
    found = run(vae, images, settings)
    certified = found.values["margin_certified"]
    assert np.isnan(certified).tolist() == [False, False, True, True]
    assert not found.values["failed"].any()
    own = certify.margin(vae, found.x[:2], 3.0, method="local", samples=200)
    assert certified[:2] == pytest.approx(own.margin.numpy())
    assert (certified[:2] > 0).any()
    assert found.form == own.form == "multiplier"
    assert any("of the first 2 of 4 inputs" in note for note in found.notes)
    (column,) = [c for c in found.table() if c.name == "margin_certified"]
    assert column.more == {"form": "multiplier", "why_form": own.why_form}
    none = run(vae, images, replace(settings, certified=0))
    assert "margin_certified" not in none.values
    assert none.certificate is None
    assert any("of the first 0 of 4 inputs" in note for note in none.notes)


def test_blocks_share_out_the_certificates(images, monkeypatch):
    monkeypatch.setattr(blocks_module, "BLOCK", 2)
    vae = models.ConvVAE((1, 8, 8), channels=3, latent=3, seed=3).eval()
    found = run(vae, images, replace(BRIEF, inputs=5, certified=3, samples=50, r=3.0))
    assert np.isnan(found.values["margin_certified"]).tolist() == [False] * 3 + [True] * 2
    assert found.certificate is certify.Guarantee.LOCAL
