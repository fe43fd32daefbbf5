"""diffusers' AutoencoderKL in a tiny configuration with random weights."""

import warnings

import pytest
import torch

import vaefast as vf
from vaefast.models import as_vae

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

OPTIONS = {"likelihood": "gaussian", "obs_std": 0.3}


def build():
    torch.manual_seed(0)
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
    ).eval()


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture
def x():
    return 2 * torch.rand(3, 3, 8, 12, generator=torch.Generator().manual_seed(1)) - 1


@torch.no_grad()
def test_moments_and_pixels_are_the_models(model, x):
    vae = as_vae(model, **OPTIONS)
    mean, logvar = vae.encode(x)
    q = model.encode(x).latent_dist
    assert vae.latent_shape == (4, 4, 6)
    assert torch.allclose(vae.unflat(mean), q.mean, atol=1e-5)
    assert torch.allclose(vae.unflat(logvar), q.logvar, atol=1e-5)
    assert torch.allclose(vae.decode(mean), model.decode(q.mean).sample, atol=1e-5)
    assert torch.allclose(vae.decode(q.mean), model.decode(q.mean).sample, atol=1e-5)
    assert torch.allclose(vae.q(x).kl(), q.kl().double(), rtol=1e-4)


def test_the_latents_follow_the_size_of_the_image(model, x):
    vae = as_vae(model, **OPTIONS)
    vae.encode(x)
    assert vae.encode(x[:, :, :4, :4])[0].shape == (3, 4 * 2 * 2)
    assert vae.latent_shape == (4, 2, 2)


def test_the_public_functions_run_on_it(model, x):
    vae = as_vae(model, **OPTIONS)
    norm = vf.geometry.frobenius_norm(vae, x, of="decoder")
    z = vae.encode(x)[0].detach()
    jacobian = torch.autograd.functional.jacobian(lambda z: vae.decode(z).flatten(1).sum(0), z)
    expected = jacobian.square().sum((0, 2)).sqrt()
    assert torch.allclose(norm.double(), expected.double(), rtol=1e-4)
    attack = vf.attacks.latent(vae, x, eps=0.05, steps=3)  # in the model's own box
    assert (attack.objective > 0).all()
    assert attack.x_adv.abs().max() <= 1
    result = vf.hmc.sample(vae, x, steps=3, warmup=2)
    assert not result.failed.any()
    assert result.z.shape == (3, 1, 3, 4, 4, 6)


@torch.no_grad()
def test_forward_mode_passes_through_the_attention(model, x):
    vae = as_vae(model, **OPTIONS)
    z = vae.encode(x)[0].detach()
    v = torch.randn_like(z)
    product = torch.func.jvp(vae.decode, (z,), (v,))[1]
    h = 1e-3
    difference = (vae.decode(z + h * v) - vae.decode(z - h * v)) / (2 * h)
    assert torch.allclose(product, difference, atol=5e-3 * float(difference.abs().max()))


def test_the_likelihood_must_be_named(model):
    with pytest.raises(ValueError, match=r"likelihood must be named for AutoencoderKL"):
        as_vae(model)
    with pytest.raises(ValueError, match=r"pixels lie in \[-1, 1\], got 'bernoulli'"):
        as_vae(model, likelihood="bernoulli")


@pytest.mark.parametrize("name", ["tiling", "slicing"])
def test_settings_that_change_the_function_are_refused(name, x):
    model = build()
    vae = as_vae(model, **OPTIONS)
    getattr(model, f"enable_{name}")()
    for call in (lambda: as_vae(model, **OPTIONS), lambda: vae.encode(x)):
        with pytest.raises(ValueError, match=rf"{name} is on, .*call model.disable_{name}\(\)"):
            call()


def test_half_precision_is_refused():
    with pytest.raises(ValueError, match=r"is in bfloat16, .*call model.float\(\)"):
        as_vae(build().bfloat16(), **OPTIONS)


def test_pixels_from_0_to_1_are_warned_of(model, x):
    with pytest.warns(UserWarning, match=r"pass 2 \* x - 1"):
        as_vae(model, **OPTIONS).check_first_batch(x.abs())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_vae(model, **OPTIONS).check_first_batch(x)
