"""Users passed ``eps=8`` for 8/255, or arrays of NumPy, and got a number or a puzzle.

Here a ball that holds every image is said in one line, and errors name what the caller passed.
"""

import warnings

import numpy as np
import pytest
import torch

import vaefast as vf
from vaefast.cli import main

SPANS = {"linf": 1.0, "l2": 4.0}  # of images of 16 pixels in [0, 1]


@pytest.fixture(scope="module")
def vae():
    return vf.models.MLPVAE((1, 4, 4), hidden=(12,), latent=3, seed=0).eval()


@pytest.fixture(scope="module")
def x():
    return torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("norm", SPANS)
@pytest.mark.parametrize("attack", ["latent", "max_damage"])
def test_a_radius_that_covers_the_box_is_said_once(vae, x, attack, norm):
    run, options = getattr(vf.attacks, attack), {"norm": norm, "steps": 2}
    with pytest.warns(UserWarning, match="covers the whole box from 0 to 1") as said:
        run(vae, x, eps=SPANS[norm], **options)
    assert len(said) == 1
    assert said[0].filename == __file__  # the line that passed it
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(vae, x, eps=0.99 * SPANS[norm], **options)
        run(vae, 8 * x, eps=SPANS[norm], low=0.0, high=8.0, **options)
        run(vae, x, eps=8.0, low=-torch.inf, high=torch.inf, **options)


def test_the_geometric_attack_says_it_too(vae, x):
    with pytest.warns(UserWarning, match="covers the whole box"):
        vf.attacks.geometric(vae, x, eps=4.0)


def test_the_command_line_says_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = vf.models.MLPVAE((1, 8, 8), hidden=(8,), latent=2, seed=0)
    vf.models.save(model, "m.safetensors")
    words = ["attack", "--data", "digits", "--model", "m.safetensors", "--inputs", "2"]
    assert main([*words, "--steps", "2", "--out", "o.npz", "--eps", "8"]) == 0
    assert "warning: latent: eps = 8 covers the whole box" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["eps", "alpha", "low", "high"])
def test_arrays_of_numpy_are_refused_with_the_way_out(vae, x, name):
    options = {"eps": 0.1, name: np.full(5, 0.5)}
    message = rf"{name} must be a number or a tensor \[B\] = \[5\], got ndarray; .*as_tensor"
    with pytest.raises(TypeError, match=message):
        vf.attacks.latent(vae, x, **options)


@pytest.mark.parametrize("shape", [(5, 4, 4), (5, 16), (5, 1, 4, 5), (5, 3, 4, 4)])
@pytest.mark.parametrize("attack", ["latent", "max_damage"])
def test_shapes_are_those_of_the_caller(vae, attack, shape):
    x = torch.full(shape, 0.5)
    with pytest.raises(ValueError, match="x") as caught:
        getattr(vf.attacks, attack)(vae, x, eps=0.1)
    assert str(list(shape)) in str(caught.value)


@pytest.mark.parametrize("shape", [(5, 4, 4), (4, 1, 4, 4), (5, 1, 4, 5)])
def test_the_target_s_shape_is_named(vae, x, shape):
    with pytest.raises(ValueError, match="target must be") as caught:
        vf.attacks.latent(vae, x, eps=0.1, target=torch.full(shape, 0.5))
    assert str(list(shape)) in str(caught.value)
    assert str(list(x.shape)) in str(caught.value)


def test_labels_that_are_no_tensor_are_told_how(vae, x):
    with pytest.raises(TypeError, match=r"got ndarray; pass torch\.as_tensor\(y\)"):
        vf.metrics.LatentClassifier.fit(vae, x, np.arange(5))
    with pytest.raises(TypeError, match=r"got float32; pass y\.long\(\)"):
        vf.metrics.LatentClassifier.fit(vae, x, torch.arange(5).float())
