"""The geometric attack: optimal to second order, on either side, inside the box."""

import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast.attacks.geometric import geometric
from vaefast.geometry import pullback_spectrum
from vaefast.models import MLPVAE, VAE, ConvVAE, as_vae

FREE = {"low": -torch.inf, "high": torch.inf}
OF = ("encoder", "fisher", "reconstruction")


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
def displacement(vae, x, x_adv, of):
    if of == "fisher":
        return vf.attacks.DIVERGENCES["skl"](*vae.encode(x_adv), *vae.encode(x))
    image = (lambda v: vae.encode(v)[0]) if of == "encoder" else vae.reconstruct
    return (image(x_adv) - image(x)).flatten(1).norm(dim=1)


@pytest.mark.parametrize("of", OF)
def test_objective_is_the_displacement_of_the_returned_point(vae, x, of):
    result = geometric(vae, x, eps=0.7, of=of)
    torch.testing.assert_close(result.objective, displacement(vae, x, result.x_adv, of))
    norm = (result.x_adv - x).flatten(1).norm(dim=1)
    torch.testing.assert_close(result.perturbation_norm, norm)
    assert result.x_adv.shape == x.shape
    assert (norm <= 0.7 + 1e-12).all()
    assert ((result.x_adv >= 0) & (result.x_adv <= 1)).all()
    assert not result.failed.any()


@pytest.mark.parametrize("of", OF)
def test_gain_is_eps_squared_times_the_top_eigenvalue_for_small_eps(vae, x, of):
    top = pullback_spectrum(vae, x, of=of).eigenvalues[:, 0]
    result = geometric(vae, x, eps=1e-5, of=of, **FREE)
    torch.testing.assert_close(result.perturbation_norm, torch.full((6,), 1e-5).double())
    gain = 2 * result.objective if of == "fisher" else result.objective**2
    torch.testing.assert_close(gain, 1e-10 * top, rtol=1e-3, atol=0)


@pytest.mark.parametrize("of", OF)
def test_no_random_direction_does_better_for_small_eps(vae, x, of):
    result = geometric(vae, x, eps=1e-3, of=of, **FREE)
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        direction = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        direction *= 1e-3 / direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        other = displacement(vae, x, x + direction, of)
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


@pytest.mark.parametrize("of", OF)
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_more_directions_and_refinement_never_weaken(vae, x, of, norm):
    options = {"eps": 0.5 if norm == "l2" else 0.05, "of": of, "norm": norm}
    one = geometric(vae, x, **options)
    three = geometric(vae, x, directions=3, **options)
    refined = geometric(vae, x, directions=3, refine=10, **options)
    assert (three.objective >= one.objective * (1 - 1e-12)).all()
    assert (refined.objective >= three.objective).all()
    assert (refined.objective > three.objective * (1 + 1e-6)).any()
    assert torch.equal(refined.best_restart, three.best_restart)
    assert list(refined.history.shape) == [11, 6]
    torch.testing.assert_close(refined.objective, displacement(vae, x, refined.x_adv, of))
    order = torch.inf if norm == "linf" else 2
    length = (refined.x_adv - x).flatten(1).norm(dim=1, p=order)
    torch.testing.assert_close(refined.perturbation_norm, length)
    assert (length <= options["eps"] * (1 + 1e-9)).all()
    assert ((refined.x_adv >= 0) & (refined.x_adv <= 1)).all()


def test_a_later_direction_is_taken_where_the_box_stops_the_first():
    mean = nn.Linear(2, 2, bias=False)
    mean.weight.data = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    vae = VAE(
        encoder_mean=mean,
        encoder_logvar=torch.zeros(2),
        decoder=nn.Linear(2, 2),
        likelihood="gaussian",
    ).eval()
    x = torch.tensor([[0.5, 0.5], [0.2, 0.5]])
    low, high = torch.tensor([0.4, 0.0]), torch.tensor([0.6, 1.0])
    result = geometric(vae, x, eps=0.4, directions=2, low=low, high=high)
    assert result.best_restart.tolist() == [0, 0]
    stopped = geometric(vae, torch.tensor([[0.0, 0.5]]), eps=0.4, directions=2, high=0.5)
    assert stopped.x_adv.tolist() == [[pytest.approx(0.4), 0.5]]


def test_linf_steps_are_the_corners_of_the_ball(vae, x):
    v = pullback_spectrum(vae, x).vectors[:, 0]
    result = geometric(vae, x, eps=0.1, norm="linf", **FREE)
    sign = 1.0 - 2.0 * result.best_restart.view(-1, 1, 1, 1)
    torch.testing.assert_close(result.x_adv, x + 0.1 * sign * v.sign())


def test_nan_rows_stay_failed_after_refinement(vae, x):
    x[2, 0, 5, 5] = torch.nan
    result = geometric(vae, x, eps=0.5, refine=3)
    assert result.failed.tolist() == [False, False, True, False, False, False]
    assert result.x_adv[2].isnan().all()
    assert result.objective[2].isnan()
    assert result.reasons[2] == "x holds NaN or infinity"


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
    geometric(vae, x, eps=0.5, of="reconstruction")
    for name, parameter in vae.named_parameters():
        assert parameter.grad is None
        assert torch.equal(parameter, state[name])


def test_empty_batch(vae, x):
    assert geometric(vae, x[:0], eps=0.5).x_adv.shape == x[:0].shape


def test_refuses(vae, x):
    with pytest.raises(ValueError, match="of must be one of 'encoder', 'fisher', 'reconstruction'"):
        geometric(vae, x, eps=0.1, of="decoder")
    with pytest.raises(TypeError, match="geometric has no argument 'space'; pass of= in its place"):
        geometric(vae, x, eps=0.1, space="output")
    with pytest.raises(ValueError, match="holds the std's terms already"):
        geometric(vae, x, eps=0.1, of="fisher", std=True)
    with pytest.raises(ValueError, match="vectors must be at most 4, got 5"):
        geometric(vae, x, eps=0.1, directions=5)
    with pytest.raises(ValueError, match="eps must be at least 0"):
        geometric(vae, x, eps=-0.1)
    with pytest.raises(ValueError, match="x must lie in"):
        geometric(vae, 2 * x, eps=0.1)
    with pytest.raises(TypeError, match=r"vae must be a vaefast\.VAE"):
        geometric(nn.Linear(2, 2), x, eps=0.1)
