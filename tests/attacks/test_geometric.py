"""The geometric attack: optimal to second order, on either side, inside the box."""

import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast.attacks.geometric import geometric
from vaefast.geometry import pullback_spectrum
from vaefast.models import MLPVAE, VAE, ConvVAE, as_vae

FREE = {"low": -torch.inf, "high": torch.inf}
SPACES = {"encoder": "encoder", "output": "reconstruction"}


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = MLPVAE((1, 8, 8), hidden=(16,), latent=4)

    def encode(self, x):
        return self.inner.encode(x)

    def decode(self, z):
        return self.inner.decode(z)


MODELS = {
    "mlp": lambda: MLPVAE((1, 8, 8), hidden=(16,), latent=4),
    "conv": lambda: ConvVAE((1, 8, 8), channels=4, latent=4),
    "plain": lambda: as_vae(Plain()),
}


@pytest.fixture(params=MODELS)
def vae(request):
    return MODELS[request.param]().double().eval()


@pytest.fixture
def x():
    return torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()


def one_latent(function, inputs=1):
    """A VAE whose mean is a function of the sum of the inputs, g(z) = z everywhere."""

    class Net(nn.Module):
        def encode(self, x):
            mean = function(x.sum(1, keepdim=True))
            return mean, torch.zeros_like(mean)

        def decode(self, z):
            return z.expand(-1, inputs)

    return as_vae(Net().eval(), likelihood="gaussian")


@torch.no_grad()
def displacement(vae, x, x_adv, space):
    image = (lambda v: vae.encode(v)[0]) if space == "encoder" else vae.reconstruct
    return (image(x_adv) - image(x)).flatten(1).norm(dim=1)


@pytest.mark.parametrize("space", SPACES)
def test_objective_is_the_displacement_of_the_returned_point(vae, x, space):
    result = geometric(vae, x, eps=0.7, space=space)
    torch.testing.assert_close(result.objective, displacement(vae, x, result.x_adv, space))
    norm = (result.x_adv - x).flatten(1).norm(dim=1)
    torch.testing.assert_close(result.perturbation_norm, norm)
    assert result.x_adv.shape == x.shape
    assert (norm <= 0.7 + 1e-12).all()
    assert ((result.x_adv >= 0) & (result.x_adv <= 1)).all()
    assert not result.failed.any()


@pytest.mark.parametrize("space", SPACES)
def test_gain_is_eps_squared_times_the_top_eigenvalue_for_small_eps(vae, x, space):
    top = pullback_spectrum(vae, x, of=SPACES[space]).eigenvalues[:, 0]
    result = geometric(vae, x, eps=1e-5, space=space, **FREE)
    torch.testing.assert_close(result.perturbation_norm, torch.full((6,), 1e-5).double())
    torch.testing.assert_close(result.objective**2, 1e-10 * top, rtol=1e-3, atol=0)


@pytest.mark.parametrize("space", SPACES)
def test_no_random_direction_does_better_for_small_eps(vae, x, space):
    result = geometric(vae, x, eps=1e-3, space=space, **FREE)
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        direction = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        direction *= 1e-3 / direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        other = displacement(vae, x, x + direction, space)
        assert (other <= result.objective * (1 + 1e-6)).all()


def test_linear_encoder_is_moved_by_its_largest_singular_value():
    generator = torch.Generator().manual_seed(0)
    mean = nn.Linear(10, 3, bias=False)
    mean.weight.data = torch.randn(3, 10, generator=generator)
    vae = VAE(
        encoder_mean=mean,
        encoder_logvar=torch.zeros(3),
        decoder=nn.Linear(3, 10),
        likelihood="gaussian",
    ).eval()
    eps = torch.tensor([0.0, 0.5, 3.0])
    result = geometric(vae, torch.rand(3, 10), eps=eps, **FREE)
    expected = eps.double() * torch.linalg.svdvals(mean.weight.double())[0]
    torch.testing.assert_close(result.objective, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("function", "sign"), [(torch.exp, 0), (lambda s: torch.exp(-s), 1)])
def test_the_better_sign_is_kept(function, sign):
    """exp moves further upwards, exp(−·) downwards; v₁ has a positive largest entry."""
    result = geometric(one_latent(function), torch.zeros(2, 1), eps=1.0, **FREE)
    assert result.best_restart.tolist() == [sign, sign]
    assert result.objective.tolist() == pytest.approx([torch.e - 1] * 2, rel=1e-6)


def test_the_sign_is_chosen_inside_the_box():
    """At the upper edge only the downward step is left, though upwards would be better."""
    vae = one_latent(torch.exp)
    result = geometric(vae, torch.tensor([[1.0], [0.0]]), eps=0.5)
    assert result.x_adv.flatten().tolist() == [0.5, 0.5]
    assert result.best_restart.tolist() == [1, 0]


def test_std_changes_the_direction(vae, x):
    plain, with_std = (geometric(vae, x, eps=0.1, std=std, **FREE) for std in (False, True))
    assert (plain.objective >= with_std.objective * (1 - 1e-2)).all()
    assert not torch.allclose(plain.x_adv, with_std.x_adv)


def test_nan_chunks_and_determinism(vae, x):
    clean = geometric(vae, x, eps=0.5)
    assert torch.equal(geometric(vae, x, eps=0.5).x_adv, clean.x_adv)
    x[2, 0, 5, 5] = torch.nan
    vf.set_memory(50_000)
    result = geometric(vae, x, eps=0.5)
    assert result.failed.tolist() == [False, False, True, False, False, False]
    assert result.x_adv[2].isnan().all()
    assert result.objective[2].isnan()
    assert result.best_restart[2] == -1
    good = [0, 1, 3, 4, 5]
    torch.testing.assert_close(result.x_adv[good], clean.x_adv[good])


def test_an_encoder_that_cannot_move_leaves_x():
    result = geometric(one_latent(lambda s: 0 * s, 2), torch.rand(3, 2), eps=1.0)
    assert (result.perturbation_norm == 0).all()
    assert (result.objective == 0).all()
    assert not result.failed.any()


def test_dtypes(vae, x):
    single = geometric(vae.float(), x.float(), eps=0.5)
    assert single.x_adv.dtype == torch.float32
    half = geometric(vae, x.bfloat16(), eps=0.5)
    assert half.x_adv.dtype == torch.bfloat16
    assert half.objective.dtype == torch.float64
    torch.testing.assert_close(half.objective, single.objective, rtol=0.1, atol=1e-3)


def test_the_model_is_left_alone(vae, x):
    state = {name: t.clone() for name, t in vae.state_dict().items()}
    geometric(vae, x, eps=0.5, space="output")
    for name, parameter in vae.named_parameters():
        assert parameter.grad is None
        assert torch.equal(parameter, state[name])


def test_empty_batch(vae, x):
    assert geometric(vae, x[:0], eps=0.5).x_adv.shape == x[:0].shape


def test_refuses(vae, x):
    with pytest.raises(ValueError, match="space must be one of 'encoder', 'output'"):
        geometric(vae, x, eps=0.1, space="latent")
    with pytest.raises(ValueError, match="eps must be at least 0"):
        geometric(vae, x, eps=-0.1)
    with pytest.raises(ValueError, match="x must lie in"):
        geometric(vae, 2 * x, eps=0.1)
    with pytest.raises(TypeError, match=r"vae must be a vaefast\.VAE"):
        geometric(nn.Linear(2, 2), x, eps=0.1)
