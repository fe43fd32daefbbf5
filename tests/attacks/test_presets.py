"""The published settings: against a plain loop over inputs where there is published code."""

import pytest
import torch

from vaefast import attacks, philox
from vaefast.attacks import PRESETS
from vaefast.attacks.divergences import DIVERGENCES
from vaefast.philox import Use


def plain_loop(vae, x, reference, sign, *, eps, norm, steps, start):
    """One input, one restart, with torch's own SGD and ReduceLROnPlateau (mathematics.md 1.2)."""
    low, high = x.min(), x.max()
    delta = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([delta], lr=1.0)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=20, factor=0.5)
    posterior = [t.detach() for t in vae.encode(reference)]
    for _ in range(steps):
        with torch.no_grad():
            delta.copy_((x + delta).clamp(low, high) - x)
        loss = sign * DIVERGENCES["skl"](*vae.encode(x + delta), *posterior).sum()
        (delta.grad,) = torch.autograd.grad(loss, delta)
        optimizer.step()
        schedule.step(loss.detach())
        with torch.no_grad():
            if norm == "linf":
                delta.clamp_(-eps, eps)
            elif delta.norm() > eps:
                delta.mul_(eps / (delta.norm() / delta.numel() ** 0.5))
        if optimizer.param_groups[0]["lr"] < 1e-6:
            break
    return (x + delta).detach().clamp(low, high)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_kuzina_is_the_published_loop(norm, make_vae, make_images):
    vae, x = make_vae(), make_images(2)
    result = attacks.latent(vae, x, eps=0.1, norm=norm, preset="kuzina2022")
    assert result.x_adv.shape == (2, 10, 1, 4, 4)
    for row in range(2):
        for restart in (0, 9):
            start = 0.2 * philox.normal(
                16, seed=0, index=torch.tensor([row]), lane=restart, use=Use.START
            ).reshape(1, 1, 4, 4)
            image = x[row : row + 1]
            options = {"eps": 0.1, "norm": norm, "steps": 50, "start": start}
            expected = plain_loop(vae, image, image, -1.0, **options)
            torch.testing.assert_close(result.x_adv[row, restart], expected[0])


def test_kuzina_supervised_is_the_published_loop(make_vae, make_images):
    vae, x, target = make_vae(), make_images(2), make_images(2, seed=5)
    preset = "kuzina2022-supervised"
    result = attacks.latent(vae, x, eps=0.2, target=target, preset=preset)
    assert result.x_adv.shape == x.shape
    assert result.history.shape == (501, 2)
    for row in range(2):
        one = slice(row, row + 1)
        options = {"eps": 0.2, "norm": "linf", "steps": 500, "start": torch.zeros_like(x[one])}
        expected = plain_loop(vae, x[one], target[one], 1.0, **options)
        torch.testing.assert_close(result.x_adv[one], expected)


def test_kuzina_box_is_that_of_each_image(make_vae, make_images):
    x = 0.3 + 0.2 * make_images(3)
    result = attacks.latent(make_vae(), x, eps=0.3, preset="kuzina2022")
    flat = result.x_adv.flatten(2)
    assert (flat.amin((1, 2)) >= x.flatten(1).amin(1)).all()
    assert (flat.amax((1, 2)) <= x.flatten(1).amax(1)).all()
    wider = attacks.latent(make_vae(), x, eps=0.3, low=0.0, high=1.0, preset="kuzina2022")
    assert (wider.x_adv.flatten(1).amin(1) < x.flatten(1).amin(1)).any()


def test_kuzina_linf_ball_holds_but_the_published_l2_leaves_it(make_vae, make_images):
    vae, x = make_vae(), make_images(3)
    linf = attacks.latent(vae, x, eps=0.1, preset="kuzina2022")
    assert (linf.perturbation_norm <= 0.1 + 1e-12).all()
    l2 = attacks.latent(vae, x, eps=0.1, norm="l2", preset="kuzina2022")
    assert (l2.perturbation_norm > 0.1).any()
    assert (l2.perturbation_norm <= 0.1 * 16**0.5 + 1e-12).all()


def test_kuzina_bad_row_fails_alone(make_vae, make_images):
    vae, x = make_vae(), make_images(3)
    clean = attacks.latent(vae, x, eps=0.1, preset="kuzina2022")
    x[1, 0, 0, 0] = torch.nan
    result = attacks.latent(vae, x, eps=0.1, preset="kuzina2022")
    assert result.failed.tolist() == [False, True, False]
    assert torch.equal(result.x_adv[[0, 2]], clean.x_adv[[0, 2]])


def test_photoguard_steps_shrink_to_a_hundredth(make_vae, make_images):
    """One pixel row followed by hand: sign steps of 0.01·(1 − 0.99·t/steps) from the start."""
    vae, x, target = make_vae(), 2 * make_images(2) - 1, 2 * make_images(2, seed=5) - 1
    result = attacks.latent(vae, x, target=target, steps=20, preset="photoguard")
    u = philox.uniform(16, seed=0, index=torch.arange(2), use=Use.START).reshape(x.shape)
    point = (x + 0.06 * (2 * u - 1)).clamp(-1, 1)
    for t in range(20):
        point.requires_grad_()
        distance = (vae.encode(point)[0] - vae.encode(target)[0].detach()).norm(dim=1).sum()
        (grad,) = torch.autograd.grad(distance, point)
        length = 0.01 - (0.01 - 0.01 / 100) / 20 * t
        moved = point.detach() - length * grad.sign()
        point = torch.minimum(torch.maximum(moved, x - 0.06), x + 0.06).clamp(-1, 1)
    torch.testing.assert_close(result.x_adv, point)


def test_mist_lowers_the_distance_of_the_means(make_vae, make_images):
    vae, x, target = make_vae(), 2 * make_images(2) - 1, 2 * make_images(2, seed=5) - 1
    result = attacks.latent(vae, x, target=target, preset="mist")
    goal = vae.encode(target)[0]
    before = (vae.encode(x)[0] - goal).square().sum(1)
    assert (-result.objective < before).all()
    assert (result.perturbation_norm <= 32 / 255 + 1e-12).all()
    assert result.history.shape == (101, 2)


def test_barrett(make_vae, make_images):
    vae, x = make_vae(), make_images(2)
    result = attacks.max_damage(vae, x, eps=1.0, preset="barrett2022")
    assert result.history.shape == (101, 2)
    assert (result.perturbation_norm <= 1.0 + 1e-9).all()
    longer = attacks.max_damage(vae, x, eps=1.0, steps=5, restarts=1, preset="barrett2022")
    assert longer.history.shape == (6, 2)


@pytest.mark.parametrize("name", [n for n, p in PRESETS.items() if p.targeted])
def test_targeted_presets_ask_for_a_target(name, make_vae, make_images):
    with pytest.raises(ValueError, match=f"preset '{name}' is a targeted attack; pass target="):
        attacks.latent(make_vae(), make_images(2), eps=0.1, preset=name)


def test_presets_belong_to_one_attack(make_vae, make_images):
    with pytest.raises(ValueError, match="preset must be one of 'barrett2022'"):
        attacks.max_damage(make_vae(), make_images(2), eps=0.1, preset="kuzina2022")


def test_every_preset_cites_its_source_and_says_what_differs():
    for preset in PRESETS.values():
        assert "20" in preset.source
        assert len(preset.differs) > 40
