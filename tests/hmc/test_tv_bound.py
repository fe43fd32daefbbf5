"""Every term of the total-variation bound against the linear-Gaussian model's closed forms."""

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from vaefast.hmc import tv_bound
from vaefast.hmc.critic import critic_bound

A = torch.tensor([[1.5], [0.5]]).double()


def posterior(model, x):
    """p(z|x) of one latent."""
    b = model.vae.decode(torch.zeros(1, 1).double()).detach()[0]
    variance = model.covariance[0, 0]
    return Normal((x - b) @ A[:, 0] * variance / 0.25, variance.sqrt())


@pytest.fixture
def pair(linear_gaussian):
    """Simulated references with their latents, and attacked versions."""
    model = linear_gaussian(A)
    generator = torch.Generator().manual_seed(5)
    z = torch.randn(3, 1, generator=generator, dtype=torch.float64)
    b = model.vae.decode(torch.zeros(1, 1).double()).detach()[0]
    x = z @ A.T + b + 0.5 * torch.randn(3, 2, generator=generator, dtype=torch.float64)
    return model, z, x, x + torch.tensor([0.3, -0.1]).double()


OPTIONS = {"temperatures": 60, "chains": 24, "leapfrog": 5, "steps": 120, "warmup": 100}


def test_every_term_and_the_bound(pair):
    model, z, x_ref, x_adv = pair
    found = tv_bound(
        model.vae, x_ref, x_adv, at=(2, 8), critic_chains=400, exact_ref=z, seed=1, **OPTIONS
    )
    q = Normal(torch.zeros(3).double(), torch.ones(3).double())
    ref, adv = posterior(model, x_ref), posterior(model, x_adv)
    exact = {
        "start": kl_divergence(q, adv),
        "gap": kl_divergence(q, ref),
        "attack": kl_divergence(ref, adv),
    }
    for name, ends in (("start", found.start), ("gap", found.gap), ("attack", [found.attack])):
        for end in ends:
            assert ((end.value - exact[name]).abs() < 4.5 * end.std_error + 5e-3).all(), name
    assert (found.gap[1].kind, found.start[1].kind) == ("upper bound", "estimate")
    assert found.attack.kind == found.bound.kind == "estimate"
    expected = sum((0.5 * value).sqrt() for value in exact.values())
    assert ((found.bound.value - expected).abs() < 4.5 * found.bound.std_error + 0.05).all()
    line = torch.linspace(-9, 9, 20001).double()[:, None]
    distance = 0.5 * torch.trapezoid(  # TV[q(z|x^a), q(z|x^r)] = 0 here; that to p(z|x^a) is not
        (q.log_prob(line).exp() - adv.log_prob(line).exp()).abs(), line[:, 0], dim=0
    )
    assert (distance <= (0.5 * found.start[1].value).sqrt() + 0.01).all()


def test_the_divergence_falls_along_the_chain(pair):
    model, _, x_ref, x_adv = pair
    found = tv_bound(model.vae, x_ref, x_adv, at=(1, 20), critic_chains=400, seed=2, **OPTIONS)
    assert found.at == (0, 1, 20)
    start, first, last = found.critic
    for low in found.critic:
        assert low.kind == "lower bound"
        assert (low.value <= found.start[1].value + 4.5 * low.std_error).all()
    assert (start.value > 0.7 * found.start[0].value - 4.5 * start.std_error).all()  # a good critic
    assert (first.value < start.value + 4.5 * start.std_error).all()
    assert (last.value.abs() < 4.5 * last.std_error + 0.02).all()  # at the posterior


def test_numbers_name_their_kind(pair):
    model, _, x_ref, x_adv = pair
    options = OPTIONS | {"temperatures": 4, "chains": 4, "steps": 10, "warmup": 5}
    found = tv_bound(model.vae, x_ref, x_adv, at=(3,), critic_chains=8, seed=3, **options)
    numbers = found.numbers()
    later = "estimate of an upper bound"  # no exact draws, no upper bound
    assert {n["kind"] for n in numbers} == {"lower bound", "estimate", later}
    named = [(n["input"], n["quantity"], n["by"], n["t"], n["kind"]) for n in numbers]
    assert len({*named}) == len(named)
    of_kl = [n for n in numbers if n["quantity"].startswith("KL[q_t") and n["t"] == 3]
    assert {n["kind"] for n in of_kl} == {"lower bound", later}  # none claims the KL itself
    along = [n for n in numbers if n["t"] == 3 and n["quantity"].startswith("KL[q_t")]
    assert [n["input"] for n in along] == [0, 1, 2, 0, 1, 2]
    assert all(isinstance(n["std_error"], float) for n in numbers)


def test_bad_input_is_told_in_one_line(pair):
    model, _, x_ref, x_adv = pair
    for options, words in (
        ({"at": (5, 5)}, r"at must be increasing numbers of transitions, got \[5, 5\]"),
        ({"at": (-1,)}, "at must be at least 0"),
        ({"critic_chains": 2}, "critic_chains must be at least 8"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            tv_bound(model.vae, x_ref, x_adv, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"x_adv must be \[3, 2\] like x_ref, got \[2, 2\]"):
        tv_bound(model.vae, x_ref, x_adv[:2])


def test_a_critic_stays_below_the_divergence():
    """Gaussians of two latents: near it where (1, z, z²) hold the log-ratio, never above."""
    generator = torch.Generator().manual_seed(0)
    shape, rows = (40, 500, 2), torch.zeros(2).double()
    law = MultivariateNormal(rows + 0.7, torch.diag(torch.tensor([1.0, 0.6]).double()))
    first = torch.randn(shape, generator=generator, dtype=torch.float64)
    second = law.loc + torch.randn(shape, generator=generator).double() @ law.scale_tril.T
    exact = kl_divergence(MultivariateNormal(rows, torch.eye(2).double()), law)
    value, error = critic_bound(first, second)
    spread = error.square().mean().sqrt() / 40**0.5
    assert value.mean() < exact + 4.5 * spread
    assert value.mean() > 0.85 * exact
    assert 0.5 < (value - exact).std() / error.mean() < 2  # the error is what it says
    same, error = critic_bound(first, torch.randn(shape, generator=generator).double())
    assert same.mean() < 4.5 * error.mean() / 40**0.5


def test_a_critic_of_few_draws_in_many_dimensions_finds_little_and_not_minus_thousands():
    """Penalty and scale are chosen where they were not fitted, and 0 is one of the scales."""
    generator = torch.Generator().manual_seed(3)
    first, second = torch.randn(2, 8, 48, 64, generator=generator).double()
    value, error = critic_bound(first, second)
    assert (value.abs() < 4.5 * error + 0.1).all()
    moved, error = critic_bound(first + 0.5, second)  # KL = 8
    assert (moved > 0.2).all()
    assert (moved < 8.0 + 4.5 * error).all()
