"""``init="geometric"``: restart 1 of a search begins along the metric's top eigenvector."""

from functools import partial

import pytest
import torch

import vaefast as vf
from vaefast.attacks import latent, max_damage
from vaefast.geometry import pullback_spectrum

ATTACKS = {
    "skl": latent,
    "means": partial(latent, divergence="means"),
    "w2": partial(latent, divergence="w2"),
    "damage": max_damage,
}
OPTIONS = {"eps": 0.3, "norm": "l2", "steps": 4, "restarts": 3, "keep": "all", "seed": 5}


@pytest.mark.parametrize("opaque", [False, True])
@pytest.mark.parametrize("name", ATTACKS)
def test_only_restart_1_begins_elsewhere(make_vae, make_images, name, opaque):
    attack, vae, x = ATTACKS[name], make_vae(opaque=opaque), make_images(4)
    plain, found = attack(vae, x, **OPTIONS), attack(vae, x, init="geometric", **OPTIONS)
    for restart in (0, 2):
        assert torch.equal(plain.x_adv[:, restart], found.x_adv[:, restart])
    assert not torch.equal(plain.history[0, :, 1], found.history[0, :, 1])
    assert (found.history[0, :, 1] > plain.history[0, :, 1]).float().mean() >= 0.5


def test_the_stronger_sign_is_taken(make_vae, make_images):
    vae, x = make_vae(), make_images(6)
    v = pullback_spectrum(vae, x).vectors[:, 0]
    options = {**OPTIONS, "restarts": 2, "divergence": "means", "low": -9.0, "high": 9.0}
    found = latent(vae, x, init="geometric", **options)
    with torch.no_grad():
        moved = [vae.encode(x + s * 0.3 * v)[0] - vae.encode(x)[0] for s in (1, -1)]
    best = torch.stack(moved).square().sum(2).amax(0)
    torch.testing.assert_close(found.history[0, :, 1], best.double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ATTACKS)
def test_infinite_norm_begins_in_a_corner_and_stays_in_the_ball(make_vae, make_images, name):
    attack, vae = ATTACKS[name], make_vae(torch.float32)
    x = make_images(3, torch.float32)
    found = attack(vae, x, init="geometric", **OPTIONS | {"norm": "linf", "eps": 0.1})
    assert (found.perturbation_norm <= 0.1 * (1 + 1e-6)).all()
    assert ((found.x_adv >= 0) & (found.x_adv <= 1)).all()


def test_rows_do_not_depend_on_the_batch_and_nan_rows_fail_alone(make_vae, make_images):
    vae, x = make_vae(), make_images(5)
    options = {**OPTIONS, "keep": "best", "init": "geometric"}
    whole = latent(vae, x, **options)
    part = latent(vae, x[3:], index=torch.tensor([3, 4]), **options)
    torch.testing.assert_close(part.x_adv, whole.x_adv[3:])
    x[1, 0, 0, 0] = torch.nan
    vf.set_memory(20_000)
    cut = latent(vae, x, **options)
    assert cut.failed.tolist() == [False, True, False, False, False]
    torch.testing.assert_close(cut.x_adv[2:], whole.x_adv[2:])


def test_a_published_setting_takes_it_too(make_vae, make_images):
    vae, x = make_vae(), make_images(2)
    found = latent(vae, x, eps=0.2, preset="kuzina2022", restarts=2, init="geometric")
    assert list(found.x_adv.shape) == [2, 2, 1, 4, 4]


def test_through_the_defence_and_in_an_empirical_margin(make_vae, make_images):
    vae, x = make_vae(), make_images(2)
    defence = {"steps": 2, "warmup": 2, "leapfrog": 2}
    options = {"eps": 0.2, "steps": 2, "restarts": 2, "init": "geometric"}
    found = max_damage(vae, x, through_defence=defence, gradient="posterior", **options)
    assert not found.failed.any()
    margin = vf.certify.empirical_margin(
        vae, x, 0.5, grid=2, bisections=1, restarts=2, steps=2, samples=20, init="geometric"
    )
    assert len(margin.margin) == 2


def test_refuses(make_vae, make_images):
    vae, x = make_vae(), make_images(2)
    with pytest.raises(ValueError, match="init must be one of 'random', 'geometric', got 'zero'"):
        latent(vae, x, eps=0.1, init="zero")
    with pytest.raises(ValueError, match="it needs restarts of at least 2, got 1"):
        max_damage(vae, x, eps=0.1, init="geometric")
    with pytest.raises(ValueError, match="leads away from x, not to a target"):
        latent(vae, x, eps=0.1, restarts=2, target=x.flip(0), init="geometric")
