"""Chains that autograd passes through: those of ``defend``, and their derivative in the image."""

import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast.hmc.through import Defending
from vaefast.models.prepare import prepare

OPTIONS = {
    "adapting": {"steps": 6, "warmup": 5, "leapfrog": 3, "chains": 2},
    "fixed": {"steps": 5, "warmup": 0, "adapt": None, "step_size": 0.3, "leapfrog": 4},
    "posterior mass": {"steps": 4, "warmup": 3, "mass": "posterior", "leapfrog": 3},
    "given mass": {"steps": 4, "warmup": 2, "mass": torch.tensor([0.5, 1.0, 2.0]), "leapfrog": 2},
    "published": {"steps": 6, "schedule": "kuzina2022", "step_size": 0.2, "chains": 2},
}
KINDS = ("network", "module")


class Opaque(nn.Module):
    """The identity, by an operation that no network has."""

    def forward(self, rows):
        return rows.nan_to_num()


def make_vae(kind="network", dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        heads = [nn.Sequential(nn.Flatten(), nn.Linear(16, 3)) for _ in range(2)]
        decoder = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 16))
    if kind == "module":
        decoder.insert(0, Opaque())
    vae = vf.VAE(
        encoder_mean=heads[0], encoder_logvar=heads[1], decoder=decoder, event_shape=(1, 4, 4)
    )
    return vae.to(dtype).eval().requires_grad_(False)


def images(rows=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(rows, 1, 4, 4, generator=generator, dtype=torch.float64).to(dtype)


def through(vae, x, options):
    part = prepare(vae, x)
    return part, Defending.checked(part, options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ends_are_those_of_the_defence(kind, name, dtype):
    options, x = dict(OPTIONS[name]), images(dtype=dtype)
    if isinstance(options.get("mass"), torch.Tensor):
        options["mass"] = options["mass"].to(dtype)
    vae = make_vae(kind, dtype)
    part, defending = through(vae, x, options)
    wanted = vf.hmc.defend(vae, x, seed=4, **options).z.flatten(0, 1)
    for last in (None, 0, 2):
        assert torch.equal(defending.ends(part, x, seed=4, last=last), wanted)
    draws = defending.draws(part, x, seed=4)
    assert draws.shape == (len(wanted), defending.options.steps, 3)
    assert torch.equal(draws[:, -1], wanted)


def test_points_of_an_input_share_its_random_numbers():
    vae, x = make_vae(), images()
    part, defending = through(vae, x, OPTIONS["adapting"])
    twice = defending.ends(part, x.repeat_interleave(2, 0), seed=4).view(3, 2, 2, 3)
    once = defending.ends(part, x, seed=4).view(3, 1, 2, 3)
    assert torch.equal(twice, once.expand_as(twice))


def test_gradient_is_the_slope_of_the_ends():
    """Without adaptation the ends are a smooth function as long as no decision changes."""
    vae, x = make_vae(), images()
    part, defending = through(vae, x, OPTIONS["fixed"])
    v, h = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x), 1e-6
    point = x.clone().requires_grad_()
    z = defending.ends(part, point, seed=4)
    (grad,) = torch.autograd.grad(z.sin().sum(), point)
    up, down = (defending.ends(part, x + s * h * v, seed=4).sin().sum() for s in (1, -1))
    torch.testing.assert_close((grad * v).sum(), (up - down) / (2 * h), rtol=1e-6, atol=1e-8)


def test_gradient_through_the_last_transitions_holds_what_came_before():
    vae, x = make_vae(), images()
    part, defending = through(vae, x, OPTIONS["adapting"])
    point = x.clone().requires_grad_()

    def gradient(last):
        z = defending.ends(part, point, seed=4, last=last)
        return torch.autograd.grad(z.square().sum(), point)[0]

    whole = gradient(None)
    assert torch.equal(gradient(11), whole)  # all transitions: through the encoder as well
    assert torch.equal(gradient(99), whole)
    assert not torch.equal(gradient(10), whole)
    assert gradient(1).any()
    assert not gradient(0).any()


def test_growth_is_the_size_of_the_derivative():
    vae, x = make_vae(), images(1)
    part, defending = through(vae, x, {**OPTIONS["fixed"], "steps": 3})
    growth = defending.growth(part, seed=4)
    assert growth.shape == (4, 1)
    assert growth[0] == pytest.approx(1.0)
    run = defending._run(part, x, 4, None)
    start = run.z.detach().requires_grad_()
    from vaefast.functional.hmc import State, step

    state = State(start, *potential(part, x)(start))
    for t in range(3):
        noise = run.draws.noise(start, t)
        state, _ = step(state, potential(part, x), step=run.step(), leapfrog=4, noise=noise)
    jacobian = torch.stack(
        [torch.autograd.grad(c, start, retain_graph=True)[0][0] for c in state.z[0]]
    )
    largest = torch.linalg.matrix_norm(jacobian, 2)
    assert 0 < growth[3] <= largest + 1e-9
    assert growth[3] >= torch.linalg.svdvals(jacobian)[-1] - 1e-9


def potential(part, x):
    """U and its gradient, differentiable."""
    vae, flat = part.vae, x.flatten(1)

    def of(z):
        with torch.enable_grad():
            z = z if z.requires_grad else z.requires_grad_()
            logits = vae.decoder(z)
            U = -(flat * logits - nn.functional.softplus(logits)).sum(1) + 0.5 * z.square().sum(1)
            (grad,) = torch.autograd.grad(U.sum(), z, create_graph=True)
        return U, grad

    return of


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("hmc", TypeError, "through_defence must be a dict of options of hmc.defend"),
        ({"stepz": 3}, TypeError, "no option 'stepz'"),
        ({"seed": 3}, ValueError, "leave 'seed' out"),
        ({"keep": "all"}, ValueError, "leave 'keep' out"),
        ({"steps": 0}, ValueError, "steps must be at least 1"),
        ({"step_size": torch.ones(3)}, TypeError, "takes one step_size, a number"),
        ({"mass": torch.rand(3, 3) + 1}, ValueError, r"takes one mass \[d\] for all rows"),
    ],
)
def test_options_that_make_no_sense_are_refused(given, error, message):
    vae, x = make_vae(), images()
    with pytest.raises(error, match=message):
        through(vae, x, given)
