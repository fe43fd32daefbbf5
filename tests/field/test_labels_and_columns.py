"""With labels 0, 3, 6 users passed ``target=3`` and got column 3: the class with label 9.

Here a target class is a label wherever the classifier knows its labels, from Python and from the
command line, as a number or as a word; and how large its logits are changes no attack.
"""

import numpy as np
import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast.cli import main
from vaefast.metrics import LatentClassifier

LABELS = torch.tensor([0, 3, 6, 9])


@pytest.fixture(scope="module")
def vae():
    model = vf.models.MLPVAE((1, 4, 4), hidden=(12,), latent=3, seed=0)
    return model.eval()


@pytest.fixture(scope="module")
def x():
    return torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def classifier(vae, x, scale=1.0):
    """Which of four directions the latent mean lies in, with logits of any size."""
    mean = vae.encode(x)[0].detach().mean(0)
    ways = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]]) * scale
    return LatentClassifier(ways, -(ways @ mean), LABELS, 1.0)


@pytest.mark.parametrize("label", LABELS.tolist())
def test_a_target_is_a_label(vae, x, label):
    known = classifier(vae, x)
    target = torch.full((len(x),), label)
    options = {
        "eps": 1.0,
        "norm": "linf",
        "divergence": "clf",
        "steps": 40,
        "low": -9.0,
        "high": 9.0,
    }
    found = vf.attacks.latent(vae, x, classifier=known, target=target, **options)
    predicted = known.predict(vae.encode(found.x_adv)[0])
    reached = predicted == label
    assert reached.float().mean() > 0.9
    assert ((found.objective > 0) == reached).all()


def test_labels_that_are_none_are_named(vae, x):
    target = torch.full((len(x),), 4)
    with pytest.raises(ValueError, match="labels of the classifier, 0, 3, 6, 9; got 4"):
        vf.attacks.latent(
            vae, x, eps=0.1, divergence="clf", classifier=classifier(vae, x), target=target
        )


def test_a_plain_function_has_columns(vae, x):
    known = classifier(vae, x)
    options = {"eps": 0.3, "divergence": "clf", "steps": 5}
    column = torch.full((len(x),), 1)
    plain = vf.attacks.latent(vae, x, classifier=lambda m: known(m), target=column, **options)
    label = torch.full((len(x),), 3)
    same = vf.attacks.latent(vae, x, classifier=known, target=label, **options)
    assert torch.equal(plain.x_adv, same.x_adv)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("targeted", [False, True])
def test_the_scale_of_the_logits_does_not_matter(vae, x, norm, targeted):
    options = {"eps": 0.2 if norm == "linf" else 0.6, "norm": norm, "divergence": "clf"}
    options |= {"steps": 15, "target": torch.full((len(x),), 6) if targeted else None}
    own = vf.attacks.latent(vae, x, classifier=classifier(vae, x), **options)
    for scale in (2.0**-40, 2.0**10, 2.0**40):
        found = vf.attacks.latent(vae, x, classifier=classifier(vae, x, scale), **options)
        torch.testing.assert_close(found.x_adv, own.x_adv)
        torch.testing.assert_close(found.objective, scale * own.objective)


@pytest.mark.parametrize("names", [None, ["ant", "bee", "owl"]])
def test_the_command_line_takes_labels_and_words(tmp_path, monkeypatch, capsys, names):
    monkeypatch.chdir(tmp_path)
    model = vf.models.MLPVAE((1, 4, 4), hidden=(12,), latent=3, seed=0)
    vf.models.save(model.eval(), "m.safetensors")
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    x = torch.rand(60, 1, 4, 4, generator=generator) * 0.2
    for k in range(3):
        x[y == k, :, k] += 0.7
    labels = 3 * y.numpy() if names is None else np.array(names)[y.numpy()]
    np.savez("d.npz", x=x.numpy(), y=labels)
    words = ["attack", "--data", "d.npz", "--model", "m.safetensors", "--out", "o.npz"]
    words += ["--divergence", "clf", "--inputs", "6", "--steps", "30", "--eps", "1/2"]
    wanted = "3" if names is None else "bee"
    assert main([*words, "--target", wanted]) == 0
    assert f"class {wanted}" in capsys.readouterr().out
    found = np.load("o.npz")
    train = LatentClassifier.fit(model, x, y)
    before, after = (train.predict(model.encode(torch.tensor(found[k]))[0]) for k in ("x", "x_adv"))
    assert (after == 1).sum() > (before == 1).sum()
    assert main([*words, "--target", "4", "--force"]) == 2
    assert "must be a class of the data" in capsys.readouterr().err


def test_a_module_s_own_attribute_of_another_kind_is_no_list_of_labels(vae, x):
    linear = nn.Linear(3, 4)
    linear.classes = ["a", "b", "c", "d"]
    target = torch.full((len(x),), 3)
    found = vf.attacks.latent(
        vae, x, eps=0.1, divergence="clf", classifier=linear, target=target, steps=2
    )
    assert found.objective.isfinite().all()
