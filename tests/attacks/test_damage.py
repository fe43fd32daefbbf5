"""Maximum damage: the reconstruction's expected movement, common and fresh noise."""

import pytest
import torch
from torch import nn

from vaefast import attacks, philox
from vaefast.attacks.distances import Distances, MeanDistance
from vaefast.models.prepare import prepare
from vaefast.models.vae import VAE
from vaefast.philox import Use

NORMS = ("linf", "l2")


def damage(vae, x_adv, x, eta):
    """Mean over S of ‖g(μ + ησ) − g(μ(x))‖₂ for eta [B, S, d]."""
    centre = vae.reconstruct(x).flatten(1)
    mean, std = vae.posterior(x_adv)
    return torch.stack(
        [(vae.g(mean + n * std).flatten(1) - centre).norm(dim=1) for n in eta.unbind(1)], 1
    ).mean(1)


def noise(rows, samples, latents, use, seed=0):
    return torch.stack(
        [
            philox.normal(latents, seed=seed, index=torch.arange(rows), step=s, use=use)
            for s in range(samples)
        ],
        1,
    )


@pytest.mark.parametrize("norm", NORMS)
def test_ball_box_and_the_objective_on_fresh_noise(make_vae, make_images, norm):
    vae, x = make_vae(), make_images(4)
    result = attacks.max_damage(
        vae, x, eps=0.3, norm=norm, steps=10, restarts=2, noise_samples=3, fresh_samples=20
    )
    assert (result.x_adv >= 0).all()
    assert (result.x_adv <= 1).all()
    assert (result.perturbation_norm <= 0.3 + 1e-9).all()
    fresh = damage(vae, result.x_adv, x, noise(4, 20, 3, Use.FRESH)).detach()
    torch.testing.assert_close(result.objective, fresh)
    fixed = damage(vae, result.x_adv, x, noise(4, 3, 3, Use.DAMAGE)).detach()
    torch.testing.assert_close(result.history.amax(0), fixed)


def test_damage_exceeds_that_of_the_clean_input(make_vae, make_images):
    vae, x = make_vae(), make_images(4)
    result = attacks.max_damage(vae, x, eps=1.0, steps=30, fresh_samples=64)
    clean = damage(vae, x, x, noise(4, 64, 3, Use.FRESH)).detach()
    assert (result.objective > clean).all()


def test_linear_model_reaches_the_largest_singular_value(make_images):
    """σ → 0 and a linear g(μ(x)) = W A x: the optimum is eps·σ_max(W A)."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(3, 16, generator=generator, dtype=torch.float64)
    w = torch.randn(16, 3, generator=generator, dtype=torch.float64)
    encoder, decoder = nn.Linear(16, 3, bias=False), nn.Linear(3, 16, bias=False)
    encoder.weight, decoder.weight = nn.Parameter(a), nn.Parameter(w)
    vae = VAE(
        encoder_mean=nn.Sequential(nn.Flatten(), encoder),
        encoder_logvar=torch.full((3,), -40.0).double(),
        decoder=decoder,
        likelihood="gaussian",
    ).eval()
    result = attacks.max_damage(
        vae, make_images(3), eps=0.2, alpha=0.05, steps=100, low=-9.0, high=9.0
    )
    optimum = 0.2 * torch.linalg.matrix_norm(w @ a, ord=2)
    assert (result.objective > 0.99 * optimum).all()
    assert (result.objective < 1.01 * optimum).all()


def test_the_standard_deviation_is_attacked_too(make_images):
    """With a constant mean all damage comes through σ, whose gradient must be followed."""

    class Constant(nn.Module):
        def forward(self, x):
            return 0.0 * x.flatten(1)[:, :2]

    class Brightness(nn.Module):
        def forward(self, x):
            return 4.0 * x.flatten(1).mean(1, keepdim=True).expand(-1, 2)

    vae = VAE(
        encoder_mean=Constant(),
        encoder_logvar=Brightness(),
        decoder=nn.Linear(2, 16, bias=False).double(),
        likelihood="gaussian",
    ).eval()
    x = 0.5 * make_images(3)
    result = attacks.max_damage(vae, x, eps=0.1, norm="linf", steps=20)
    torch.testing.assert_close(result.x_adv, x + 0.1)


def test_the_noise_is_common_to_steps_and_restarts(make_vae, make_images):
    """With eps = 0 every iterate of every restart is x: their values must be one number."""
    result = attacks.max_damage(
        make_vae(), make_images(3), eps=0.0, steps=4, restarts=3, keep="all"
    )
    first = result.history[0, :, 0]
    torch.testing.assert_close(result.history, first[None, :, None].expand(5, 3, 3))
    assert (result.objective[:, 0] != first).all()  # fresh draws


@pytest.mark.parametrize("name", ["noise_samples", "fresh_samples"])
def test_sample_counts_are_checked(make_vae, make_images, name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        attacks.max_damage(make_vae(), make_images(2), eps=0.1, **{name: 0})


def test_the_gradient_of_the_distance_is_autograd_s(make_vae, make_images):
    """Also where two images are the same, at which the norm has no derivative but 0."""
    prepared = prepare(make_vae().double(), make_images(2).double())
    distance = MeanDistance(Distances(prepared.maps))
    noise = torch.randn(2, 3, prepared.maps.latents, generator=torch.Generator().manual_seed(0))
    noise = noise.double()
    point = prepared.x.repeat_interleave(2, 0)
    (images,) = distance.outputs(point, prepared.x, noise)
    images = images.detach().requires_grad_()
    centre = images[::2, 0].detach()  # a distance of exactly 0
    moved = images - centre.repeat_interleave(2, 0).unsqueeze(1)
    expected = torch.linalg.vector_norm(moved.flatten(2), dim=2).mean(1)
    (grad,) = torch.autograd.grad(expected.sum(), images)
    value, (slope,) = distance.sloped((images.detach(),), centre, noise)
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(slope, grad)
    assert not slope[0, 0].any()
