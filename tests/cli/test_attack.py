"""Targets, presets and the classifier's loss of ``vaefast attack``."""

import numpy as np
import pytest
import torch

from vaefast import data, models
from vaefast.attacks import latent
from vaefast.metrics import LatentClassifier

SMALL = ["--inputs", 3, "--threads", 1, "--out", "a.npz", "--force"]
STEPS = ["--steps", 3, "--restarts", 1]
X = np.random.default_rng(0).random((20, 1, 8, 8)).astype(np.float32)


@pytest.fixture
def attack(run, model):
    def call(*words, data="digits", model=model):
        code, stdout, stderr = run("attack", "--data", data, "--model", model, *SMALL, *words)
        assert (code, stderr) == (0, "")
        return np.load("a.npz"), stdout

    return call


@pytest.fixture
def refuse(refused, model):
    def call(*words, data="digits", model=model):
        return refused("attack", "--data", data, "--model", model, *SMALL, *words)

    return call


def test_a_target_is_approached(attack, model):
    np.save("t.npy", X[0, 0])
    np.savez("t.npz", x=X[:3])
    vae = models.load(model)
    for name, target in (("t.npy", X[:1].repeat(3, 0)), ("t.npz", X[:3])):
        found, stdout = attack("--target", name, "--divergence", "means", *STEPS)
        expected = latent(
            vae,
            torch.from_numpy(found["x"]),
            eps=0.1,
            divergence="means",
            target=torch.from_numpy(target),
            steps=3,
        )
        assert np.array_equal(found["x_adv"], expected.x_adv.numpy())
        assert f"target   {name}, one" in stdout


def test_an_image_is_a_target(attack):
    from PIL import Image

    Image.fromarray((255 * X[0, 0]).astype(np.uint8)).save("t.png")
    np.save("t.npy", (255 * X[:1]).astype(np.uint8))
    image, _ = attack("--target", "t.png", *STEPS)
    array, _ = attack("--target", "t.npy", *STEPS)
    assert np.array_equal(image["x_adv"], array["x_adv"])


def test_the_classifier_is_that_of_an_audit(attack, model):
    digits, vae = data.load("digits"), models.load(model)
    found, _ = attack("--divergence", "clf", *STEPS, "--seed", 2)
    classifier = LatentClassifier.fit(vae, digits.x_train, digits.y_train, seed=2)
    x = torch.from_numpy(found["x"])
    options = {"divergence": "clf", "classifier": classifier, "steps": 3, "seed": 2}
    assert np.array_equal(found["x_adv"], latent(vae, x, eps=0.1, **options).x_adv.numpy())


def test_a_class_is_a_target_by_its_label(attack, refuse):
    np.savez("d.npz", x=X, y=np.array([3, 7] * 10))
    found, stdout = attack("--divergence", "clf", "--target", "7", *STEPS, data="d.npz")
    assert "target   class 7" in stdout
    assert found["objective"].shape == (3,)
    np.savez("d.npz", x=X, y=np.array(["owl", "ant"] * 10))
    assert (
        "target   class owl"
        in attack("--divergence", "clf", "--target", "owl", *STEPS, data="d.npz")[1]
    )
    words = ["--divergence", "clf", "--target"]
    assert "a class of the data, ant, owl; got 'bee'" in refuse(*words, "bee", data="d.npz")


def test_presets_fill_what_was_not_given(attack, gaussian):
    found, stdout = attack("--preset", "kuzina2022", "--steps", 2)
    assert found["history"].shape == (3, 3)
    assert found["x_adv"].shape == found["x"].shape
    assert "latent, ℓ∞ 0.1" in stdout
    found, _ = attack("--preset", "barrett2022", "--steps", 2, "--eps", "1/2")
    length = np.linalg.norm((found["x_adv"] - found["x"]).reshape(3, -1), axis=1)
    assert (length <= 0.5 * (1 + 1e-5)).all()
    np.save("t.npy", X[0])
    found, stdout = attack(
        "--preset", "photoguard", "--target", "t.npy", "--steps", 2, model=gaussian
    )
    assert found["x"].min() == -1
    assert 0 < np.abs(found["x_adv"] - found["x"]).max() <= 0.06 * (1 + 1e-5)


def test_words_that_contradict_each_other(refuse, model):
    np.save("t.npy", X[:2])
    np.save("d.npy", X)
    assert "--preset must be one of 'kuzina2022'" in refuse("--preset", "x")
    assert "is for --kind max-damage, got latent" in refuse(
        "--preset", "barrett2022", "--kind", "latent"
    )
    assert "needs --target FILE" in refuse("--preset", "kuzina2022-supervised")
    assert "--target is for --kind latent" in refuse("--kind", "max-damage", "--target", "t.npy")
    assert "--divergence is for --kind latent" in refuse(
        "--kind", "max-damage", "--divergence", "skl"
    )
    assert "--divergence must be one of" in refuse("--divergence", "x")
    assert "one input or one for each of the 3" in refuse("--target", "t.npy")
    assert "no file no.npy" in refuse("--target", "no.npy")
    assert "for which the attack is --divergence clf" in refuse("--target", "3")
    assert "needs the labels of the inputs; pass --labels" in refuse(
        "--divergence", "clf", data="d.npy"
    )
    np.save("t.npy", np.zeros((1, 3, 3)))
    assert "[n, 1, 8, 8] like the data, got [1, 1, 3, 3]" in refuse("--target", "t.npy")
    assert "'--eps': must be a number or a fraction" in refuse("--eps", "x")
