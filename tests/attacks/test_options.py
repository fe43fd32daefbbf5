"""Bad input is one clear line that names the way out."""

from functools import partial

import pytest
import torch
from torch import nn

from vaefast import attacks
from vaefast.attacks.options import check_images, make_search
from vaefast.attacks.presets import find

CASES = [
    ({"eps": None}, TypeError, "eps is missing"),
    ({"eps": -0.1}, ValueError, "eps must be at least 0"),
    ({"eps": torch.tensor([0.1, -0.1, 0.1])}, ValueError, "eps must be at least 0"),
    ({"eps": torch.ones(2)}, ValueError, r"eps must be a float or \[B\] = \[3\]"),
    ({"eps": float("nan")}, ValueError, "eps must be a number"),
    ({"eps": float("inf")}, ValueError, "eps must be finite"),
    ({"eps": torch.tensor([0.1, float("nan"), 0.1])}, ValueError, "got nan in row 1"),
    ({"alpha": float("inf")}, ValueError, "alpha must be finite"),
    ({"eps": "0.1"}, TypeError, "eps must be a number"),
    ({"norm": "l3"}, ValueError, "norm must be one of 'linf', 'l2', 'l1', got 'l3'"),
    ({"alpha": -1.0}, ValueError, "alpha must be at least 0"),
    ({"steps": 0}, ValueError, "steps must be at least 1"),
    ({"steps": 2.5}, TypeError, "steps must be a whole number"),
    ({"restarts": 0}, ValueError, "restarts must be at least 1"),
    ({"restarts": 5000}, ValueError, "restarts must be at most 4096"),
    ({"keep": "some"}, ValueError, "keep must be one of 'best', 'all'"),
    ({"low": 0.5}, ValueError, r"x must lie in \[low, high\] = \[0.5, 1\]"),
    ({"low": 1.0, "high": 0.0}, ValueError, "low must be at most high, got 1 and 0"),
    ({"high": 0.5}, ValueError, "rescale x or pass low= and high="),
    ({"seed": 1.5}, TypeError, "seed must be a whole number"),
    ({"index": torch.arange(2)}, ValueError, r"index must be \[B\]"),
    ({"index": torch.ones(3)}, TypeError, "index must be int64"),
    ({"index": torch.tensor([0, 1, -1])}, ValueError, "index must lie in"),
    ({"preset": "foolbox"}, ValueError, "preset must be one of"),
]


@pytest.mark.parametrize("attack", ["latent", "max_damage"])
@pytest.mark.parametrize(("options", "error", "message"), CASES)
def test_bad_options(attack, options, error, message, make_vae, make_images):
    with pytest.raises(error, match=message) as caught:
        getattr(attacks, attack)(make_vae(), make_images(3), **{"eps": 0.1, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("attack", ["latent", "max_damage"])
def test_bad_x_and_model(attack, make_vae, make_images):
    attack, vae, x = getattr(attacks, attack), make_vae(), make_images(3)
    for bad, error, message in [
        (x.numpy(), TypeError, "x must be a torch.Tensor"),
        (x[0, 0, 0], ValueError, r"x must be \[B, \*event\]"),
        ((x * 255).byte(), TypeError, r"pass x\.float\(\)"),
        (x.float(), TypeError, "x must be float64 like the model"),
        (x[:, :, :3], ValueError, r"x must be \[B, 1, 4, 4\]"),
        (x.reshape(3, 16), ValueError, r"x must be \[B, 1, 4, 4\]"),
        (x[:, :, :0], ValueError, "x must have at least one entry"),
        (2 * x - 1, ValueError, r"x must lie in \[low, high\]"),
    ]:
        with pytest.raises(error, match=message):
            attack(vae, bad, eps=0.1)
    with pytest.raises(TypeError, match=r"vaefast\.as_vae"):
        attack(nn.Linear(2, 2), x, eps=0.1)


@pytest.mark.parametrize("divergence", ["skl", "clf"])
def test_bad_targets(divergence, make_vae, make_images):
    vae, x = make_vae(), make_images(3)
    options = {"classifier": nn.Linear(3, 2).double()} if divergence == "clf" else {}
    for bad, error, message in [
        (x[:2], ValueError, r"target must be \[3, 1, 4, 4\] like x, got \[2, 1, 4, 4\]"),
        (x.float(), TypeError, r"pass target\.to\(x\.dtype\)"),
        (x.tolist(), TypeError, "target must be a torch.Tensor"),
    ]:
        with pytest.raises(error, match=message):
            attacks.latent(vae, x, eps=0.1, divergence=divergence, target=bad, **options)


def test_unknown_divergence(make_vae, make_images):
    with pytest.raises(ValueError, match=r"divergence must be one of 'skl', .*'clf', got 'tv'"):
        attacks.latent(make_vae(), make_images(2), eps=0.1, divergence="tv")


def test_meta_device_is_named(make_vae, make_images):
    vae, x = make_vae(), make_images(2)
    with pytest.raises(ValueError, match=r"target is on meta, x on cpu; pass target\.to\('cpu'\)"):
        attacks.latent(vae, x, eps=0.1, target=x.to("meta"))
    with pytest.raises(ValueError, match=r"eps is on meta, x on cpu"):
        attacks.latent(vae, x, eps=torch.ones(2, device="meta"))


def test_images_leave_the_callers_graph_and_inference_mode(make_images):
    x = make_images(2).requires_grad_()
    assert not check_images(x).requires_grad
    with torch.inference_mode():
        frozen = make_images(2)
    with torch.inference_mode(False):
        assert not check_images(frozen).is_inference()


def test_bounds_of_half_precision_images_are_float32(make_images):
    options = find(None, "latent").fill(
        None,
        eps=0.1,
        norm=None,
        alpha=None,
        steps=None,
        restarts=None,
        low=None,
        high=None,
        keep=None,
    )
    search = make_search(make_images(2, torch.bfloat16), find(None, "latent"), options, seed=0)
    for bound in (search.eps, search.alpha, search.low, search.high):
        assert bound.dtype == torch.float32
    assert (search.eps.double() <= 0.1).all()
    torch.testing.assert_close(search.eps, torch.tensor([0.1, 0.1]))


@pytest.mark.parametrize("attack", ["latent", "max_damage", "geometric", "barrett2022"])
def test_the_box_of_the_model_is_the_default(make_vae, attack):
    vae, x = make_vae(), 2 * torch.rand(3, 1, 4, 4).double() - 1
    x[0, 0, 0] = -1.0
    x[0, 0, 1] = 1.0
    functions = {"barrett2022": partial(attacks.max_damage, preset=attack)}
    run = partial(functions.get(attack) or getattr(attacks, attack), vae, eps=5.0)
    with pytest.raises(ValueError, match=r"x must lie in \[low, high\] = \[0, 1\]"):
        run(x)
    vae.box = (-1.0, 1.0)
    found = run(x).x_adv
    assert found.min() == -1.0
    assert found.max() == 1.0
    assert torch.equal(run(x, low=-1.0, high=1.0).x_adv, found)
    assert run(x, low=-2.0).x_adv.min() < -1.0


def test_a_preset_with_a_box_of_its_own_keeps_it():
    published = find("photoguard", "latent").fill((0.0, 2.0), low=None, high=None)
    assert published == {"low": -1.0, "high": 1.0}
    assert find("kuzina2022", "latent").fill((0.0, 2.0), low=None) == {"low": None}
