"""The steps of an audit singly, and what they pass to each other."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

TINY_HMC = ["--warmup", "2", "--transitions", "2", "--leapfrog", "2"]


def test_the_steps_singly(run, refused):
    train = ["train", "--data", "digits", "--epochs", 1, "--out", "m.safetensors"]
    common = ["--model", "m.safetensors", "--inputs", 4, "--threads", 1]
    attack = ["attack", "--data", "digits", *common, "--steps", 2, "--out", "a.npz"]
    assert run(*train)[0] == 0
    assert "--force" in refused(*train)
    assert run(*attack)[0] == 0
    assert run(*attack, "--kind", "max-damage", "--eps", 0.5, "--force")[0] == 0
    defend = ["defend", "--data", "a.npz", *common, "--out", "d.npz", *TINY_HMC]
    assert run(*defend)[0] == 0
    assert run(*defend, "--data", "digits", "--force")[0] == 0
    assert (
        run("certify", "--data", "digits", *common, "--samples", 20, "--out", "c.parquet")[0] == 0
    )
    attacked, defended = np.load("a.npz"), np.load("d.npz")
    assert attacked["x_adv"].shape == attacked["x"].shape == (4, 1, 8, 8)
    assert set(attacked) == {
        *("x", "x_adv", "objective", "perturbation_norm", "failed", "history", "y"),
        *("reasons", "nonfinite_gradients"),
    }
    assert np.linalg.norm((attacked["x_adv"] - attacked["x"]).reshape(4, -1), axis=1).max() <= 0.501
    assert defended["reconstruction"].shape == (4, 1, 8, 8)
    table = pq.read_table("c.parquet")
    assert "margin_whitened" in table.column_names
    assert table.schema.field("margin_certified").metadata[b"form"] == b"smaller"


def test_defend_takes_what_attack_wrote(run, model):
    common = ["--model", model, "--inputs", 2, "--threads", 1]
    assert run("attack", "--data", "digits", *common, "--steps", 2, "--out", "a.npz")[0] == 0
    assert run("defend", "--data", "a.npz", *common, "--out", "d.npz", *TINY_HMC)[0] == 0
    assert np.array_equal(np.load("d.npz")["x"], np.load("a.npz")["x_adv"])


def test_a_likelihood_that_contradicts_a_saved_model(refused, gaussian):
    words = ["attack", "--data", "digits", "--model", gaussian, "--out", "a.npz"]
    line = refused(*words, "--likelihood", "bernoulli")
    assert "likelihood 'gaussian' already, got 'bernoulli'" in line


X = np.random.default_rng(0).random((3, 1, 8, 8), np.float32)
UNFIT = {
    "NaN": np.where(X > 0.9, np.nan, X),
    "int32": (255 * X).astype(np.int32),
    "not empty": X[:0],
    "channels last": np.ones((3, 32, 32, 3), np.float32),
}


def defending(model, x_adv):
    np.savez("bad.npz", x=X, x_adv=x_adv)
    return ["defend", "--data", "bad.npz", "--model", model, "--out", "d.npz", *TINY_HMC]


@pytest.mark.parametrize("words", UNFIT)
def test_defend_checks_what_it_is_given(refused, model, gaussian, words):
    for each in (model, gaussian):
        line = refused(*defending(each, UNFIT[words]))
        assert words in line
        assert "bad.npz: x_adv must be" in line


def test_only_a_gaussian_model_defends_values_outside_the_unit_interval(
    refused, run, model, gaussian
):
    assert "x_adv must be in [0, 1]" in refused(*defending(model, 7 * X))
    assert run(*defending(gaussian, 7 * X))[0] == 0
    assert np.array_equal(np.load("d.npz")["x"], 7 * X)


def test_defend_does_not_fall_back_on_clean_inputs(refused, model):
    command = defending(model, X)
    whole = Path("bad.npz").read_bytes()
    at = whole.index(X.tobytes(), whole.index(b"x_adv.npy"))  # spoils x_adv alone
    Path("bad.npz").write_bytes(whole[:at] + b"spoilt" + whole[at + 6 :])
    assert "bad.npz is not a readable" in refused(*command)


def test_defend_keeps_double_precision(run, module):
    x = X.astype(np.float64) / 3
    assert run(*defending(f"{module}:in_double", x))[0] == 0
    assert np.array_equal(np.load("d.npz")["x"], x)


def test_a_killed_training_goes_on(run, refused, here):
    train = ["train", "--data", "digits", "--epochs", 1, "--threads", 1, "--objective", "tcvae"]
    code, output, _ = run(*train, "--beta", 5, "--checkpoint", "run.ckpt", "--out", "a.safetensors")
    assert code == 0
    assert "objective tcvae, beta 5" in output
    code, output, _ = run(*train, "--beta", 5, "--checkpoint", "run.ckpt", "--out", "b.safetensors")
    assert code == 0
    assert "goes on from run.ckpt" in output
    assert Path("a.safetensors").read_bytes() == Path("b.safetensors").read_bytes()
    again = [*train, "--beta", 2, "--checkpoint", "run.ckpt", "--out", "c.safetensors"]
    assert "TCVAE(beta=5.0, estimator='weighted'), this one has" in refused(*again)
    assert run(*train, "--out", "d.safetensors")[0] == 0
    assert not list(Path(".").glob("*.checkpoint"))
    assert "--objective must be one of" in refused(
        *train, "--objective", "vae", "--out", "e.safetensors"
    )
