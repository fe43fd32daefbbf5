"""Groups of latents: closed-form posteriors, gradients, and what may not be asked."""

import pytest
import torch
from scipy import stats
from torch import nn

from vaefast.hmc import defend_groups, sample, sample_groups
from vaefast.models import MLPVAE, HierarchicalVAE, as_hierarchical
from vaefast.models.group_view import GroupView

STD1, STD2, NOISE = 1.0, 0.6, 0.4  # of z_1, of z_2 given z_1, of x given both


class Linear(nn.Module):
    """z_1 ~ N(0, I), z_2|z_1 ~ N(W z_1, s²I), x|z ~ N(A z_1 + B z_2, r²I), all known."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.W, self.A, self.B = (
            nn.Parameter(torch.randn(*shape, generator=generator).double(), requires_grad=False)
            for shape in ((3, 2), (4, 2), (4, 3))
        )

    def posterior_path(self, x, noise):
        zero = x.new_zeros(len(x), 2)
        path = [(zero + noise[0], zero, zero)]
        if len(noise) > 1:
            mean = path[0][0] @ self.W.T
            path.append((mean + 0.5 * noise[1], mean, torch.full_like(mean, 0.25).log()))
        return path

    def prior_path(self, z, noise):
        path = [] if z else [(noise[0], 0 * noise[0], 0 * noise[0])]
        top = z[0] if z else path[0][0]
        if len(z) + len(noise) > 1:
            mean = top @ self.W.T
            logvar = torch.full_like(mean, STD2**2).log()
            path.append((mean + STD2 * noise[-1], mean, logvar))
        return path

    def decode(self, z):
        return z[0] @ self.A.T + z[1] @ self.B.T

    def log_joint(self, z, x):
        def logp(value, mean, std):
            return torch.distributions.Normal(mean, std).log_prob(value).sum(1)

        prior = logp(z[0], 0.0 * z[0], STD1) + logp(z[1], z[0] @ self.W.T, STD2)
        return prior + logp(x, self.decode(z), NOISE)


def linear(**changes):
    module = Linear()
    functions = {"posterior_path": module.posterior_path, "log_joint": module.log_joint}
    functions |= {"prior_path": module.prior_path, "decode": module.decode}
    return module, as_hierarchical(module, shapes=[(2,), (3,)], **{**functions, **changes}).eval()


def posterior(precision, linear_term):
    covariance = torch.linalg.inv(precision)
    return linear_term @ covariance, covariance


def joint_posterior(m, x):
    """Mean [B, 5] and covariance of (z_1, z_2) given x."""
    prior = torch.zeros(5, 5).double()
    prior[:2, :2] = torch.eye(2) / STD1**2 + m.W.T @ m.W / STD2**2
    prior[:2, 2:], prior[2:, :2] = -m.W.T / STD2**2, -m.W / STD2**2
    prior[2:, 2:] = torch.eye(3) / STD2**2
    C = torch.cat((m.A, m.B), 1)
    return posterior(prior + C.T @ C / NOISE**2, x @ C / NOISE**2)


def top_posterior(m, x, below, kind):
    """Of z_1 given x and z_2, or given x and the noise of z_2."""
    if kind == "held":
        precision = torch.eye(2) + m.W.T @ m.W / STD2**2 + m.A.T @ m.A / NOISE**2
        return posterior(precision, (x - below @ m.B.T) @ m.A / NOISE**2 + below @ m.W / STD2**2)
    D = m.A + m.B @ m.W
    return posterior(torch.eye(2) + D.T @ D / NOISE**2, (x - STD2 * below @ m.B.T) @ D / NOISE**2)


X = torch.randn(2, 4, generator=torch.Generator().manual_seed(1)).double()
RUN = {"chains": 1500, "warmup": 60, "steps": 20, "leapfrog": 6, "keep": "last", "seed": 2}


def check_moments(z, mean, covariance):
    """z [B, C, d] are independent draws of N(mean, covariance)."""
    C = z.shape[1]
    for row, m in zip(z, mean):
        std = covariance.diagonal().sqrt()
        assert ((row.mean(0) - m).abs() < 4.5 * std / C**0.5).all()
        error = (std[:, None] * std) * (2 / C) ** 0.5
        assert ((row.T.cov() - covariance).abs() < 4.5 * error).all()
        for i in range(len(m)):
            assert stats.kstest(row[:, i], stats.norm(m[i], std[i]).cdf).pvalue > 1e-4


def test_all_groups_of_a_linear_model_have_its_posterior():
    module, model = linear()
    draws = sample_groups(model, X, **RUN)
    assert [tuple(z.shape) for z in draws.z] == [(2, 1500, 1, 2), (2, 1500, 1, 3)]
    check_moments(draws.chain.z[:, :, 0], *joint_posterior(module, X))


@pytest.mark.parametrize("below", ["prior", "held"])
def test_the_top_group_has_its_conditional_posterior(below):
    module, model = linear()
    draws = sample_groups(model, X, top=1, below=below, **RUN)
    assert draws.below.shape == (2, 3)
    z, exact = draws.chain.z[:, :, 0], top_posterior(module, X, draws.below, below)
    check_moments(z, *exact)


def test_the_energy_is_the_joint_density():
    module, model = linear()
    draws = sample_groups(model, X, chains=3, steps=4, warmup=2, leapfrog=2, seed=5)
    z = draws.chain.z.flatten(0, 2)
    energy = -module.log_joint([z[:, :2], z[:, 2:]], X.repeat_interleave(12, 0))
    assert torch.allclose(draws.chain.energy.flatten(), energy)


def tiny(K=3, **options):
    return HierarchicalVAE((1, 8, 8), K, 2, 3, **options).double().eval()


IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(2)).double()


@pytest.mark.parametrize("top", [1, 2, 3])
@pytest.mark.parametrize("below", ["prior", "held"])
def test_gradients_are_those_of_finite_differences(top, below):
    view = GroupView(tiny(), top, below, (1, 8, 8))
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(3, view.latent_dim, generator=generator).double().requires_grad_()
    rest = torch.randn(3, sum(view.model.sizes[top:]), generator=generator).double()
    assert torch.autograd.gradcheck(lambda z: view.log_joint(z, rest, IMAGES.flatten(1)), z)


def test_the_prior_below_leaves_no_density_of_its_own():
    """log p(z_1, x | ε) = log p(z_1) + log p(x | z_1, z_2(ε), ...)."""
    model = tiny()
    view = GroupView(model, 1, "prior", (1, 8, 8))
    z, rest = torch.randn(3, 3).double(), torch.randn(3, sum(model.sizes[1:])).double()
    groups = view.groups(z, rest)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    expected = expected + model.likelihood_at(model.decode(groups)).log_prob(IMAGES)
    assert torch.allclose(view.log_joint(z, rest, IMAGES.flatten(1)), expected)


@pytest.mark.parametrize("top", [1, 2, None])
def test_the_defence_reconstructs_from_the_last_state(top):
    model = tiny()
    options = {"chains": 2, "steps": 3, "warmup": 3, "leapfrog": 2, "seed": 4}
    found = defend_groups(model, IMAGES, top=top, temperature=0.7, **options)
    assert found.reconstruction.shape == (3, 2, 1, 8, 8)
    assert [tuple(z.shape[2:]) for z in found.z] == list(model.shapes)
    own = model.g([z.flatten(0, 1) for z in found.z]).unflatten(0, (3, 2))
    assert torch.allclose(found.reconstruction, own)
    sampled = torch.cat([z.flatten(2) for z in found.z], -1)[..., : found.draws.chain.z.shape[-1]]
    assert torch.equal(sampled, found.draws.chain.z[:, :, -1])
    again = defend_groups(model, IMAGES, top=top, temperature=0.7, **options)
    assert torch.equal(again.reconstruction, found.reconstruction)


def test_a_row_is_the_same_alone_and_beside_others():
    model, options = tiny(), {"top": 2, "steps": 3, "warmup": 2, "leapfrog": 2}
    together = defend_groups(model, IMAGES, **options).reconstruction
    alone = defend_groups(model, IMAGES[2:], index=torch.tensor([2]), **options).reconstruction
    assert torch.allclose(together[2:], alone, atol=1e-9)


def test_a_row_that_is_not_finite_fails_alone():
    x = IMAGES.clone()
    x[1, 0, 0, 0] = torch.nan
    with pytest.warns(UserWarning, match=r"1 of 3 inputs \(row 1\) failed: x holds NaN"):
        found = defend_groups(tiny(), x, top=1, below="held", steps=2, warmup=2, leapfrog=2)
    assert found.draws.chain.failed.tolist() == [False, True, False]
    assert found.reconstruction.isnan().flatten(1).any(1).tolist() == [False, True, False]


def calibrate(model, rows, draws, spacing, seed):
    """z* ~ p(z), x ~ p(x|z*): ranks of z* among posterior draws, [rows, d]."""
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.randn(rows, *s, generator=generator).double() for s in model.shapes]
    with torch.no_grad():
        truth = model.sample(noise)
        image = model.g(truth)
    x = (torch.rand(image.shape, generator=generator).double() < image).double()
    options = {"warmup": 150, "steps": spacing * draws, "keep": draws, "leapfrog": 8, "seed": seed}
    result = sample_groups(model, x, **options).chain
    assert not result.failed.any()
    return (result.z[:, 0] < model.flat(truth)[:, None]).sum(1)


def assert_uniform(rank, draws, level):
    for i in range(rank.shape[1]):
        counts = torch.bincount(rank[:, i], minlength=draws + 1)
        assert stats.chisquare(counts).pvalue > level


@pytest.mark.proof
def test_simulation_based_calibration_of_a_convolutional_model():
    with torch.random.fork_rng():
        model = HierarchicalVAE((1, 8, 8), 3, 4, 3, seed=1).double().eval()
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "prior" in name or "merge" in name:
                    p.mul_(4.0)  # priors that depend on what is above them
    rank = calibrate(model, 600, 19, 12, 7)
    assert_uniform(rank, 19, 1e-6)  # of 51 coordinates


class Curved(nn.Module):
    """Two groups of one number each, x of three bits."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(2, 3).double()
        with torch.no_grad():
            self.out.weight.copy_(torch.tensor([[2.0, 1.0], [-1.0, 2.0], [1.0, -2.0]]))
            self.out.bias.zero_()

    def path(self, x, noise):
        z = [noise[0]]
        mean, logvar = torch.tanh(2 * z[0]), torch.sin(z[0])
        z.append(mean + torch.exp(0.5 * logvar) * noise[-1])
        return [(z[0], 0 * z[0], 0 * z[0]), (z[1], mean, logvar)][: len(noise)]

    def log_joint(self, z, x):
        normal = torch.distributions.Normal
        prior = normal(0.0, 1.0).log_prob(z[0])
        scale = torch.exp(0.5 * torch.sin(z[0]))
        prior = prior + normal(torch.tanh(2 * z[0]), scale).log_prob(z[1])
        logits = self.decode(z)
        return prior[:, 0] - nn.functional.binary_cross_entropy_with_logits(
            logits, x, reduction="none"
        ).sum(1)

    def decode(self, z):
        return self.out(torch.cat(z, 1))


def test_simulation_based_calibration():
    module = Curved()
    model = as_hierarchical(
        module,
        posterior_path=module.path,
        log_joint=module.log_joint,
        prior_path=lambda z, noise: module.path(None, noise),
        decode=module.decode,
        shapes=[(1,), (1,)],
        likelihood="bernoulli",
    )
    assert_uniform(calibrate(model, 800, 19, 8, 7), 19, 1e-4)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"top": 3}, ValueError, "top must be at most the model's 2 groups, got 3"),
        ({"top": 0}, ValueError, "top must be at least 1"),
        ({"below": "mean"}, ValueError, "below must be one of 'prior', 'held'"),
        ({"temperature": -1}, ValueError, "temperature must be at least 0 and finite"),
        ({"context": X}, TypeError, "takes no context="),
        ({"leap": 3}, TypeError, "has no option 'leap'"),
        ({"model": MLPVAE((4,), (8,), 2)}, TypeError, "must be a HierarchicalVAE or come from"),
    ],
)
def test_mistakes(change, error, words):
    arguments = {"model": linear()[1], **change}
    with pytest.raises(error, match=words) as caught:
        sample_groups(arguments.pop("model"), X, **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"posterior_path": lambda x, n: n}, TypeError, r"group 0 must be \(z, mean, logvar\)"),
        ({"posterior_path": lambda x, n: []}, TypeError, "one for each of 2 noises, got 0"),
        (
            {"posterior_path": lambda x, n: [(n[1], n[1], n[1])] * 2},
            ValueError,
            r"z of group 0 must be \[2, 2\] like its noise, got \[2, 3\]",
        ),
        (
            {"log_joint": lambda z, x: x},
            ValueError,
            r"log_joint must return a tensor \[n\] = ",
        ),
        ({"log_joint": None}, TypeError, "log_joint must be a function, got NoneType"),
        (
            {"log_joint": lambda z, x: Linear().log_joint([t.detach() for t in z], x)},
            RuntimeError,
            "carries no gradient to z",
        ),
    ],
)
def test_wrapped_functions_that_are_wrong(change, error, words):
    with pytest.raises(error, match=words) as caught:
        sample_groups(linear(**change)[1], X, steps=2, warmup=2)
    assert "\n" not in str(caught.value)


def test_what_needs_more_than_two_functions_says_so():
    two = linear(prior_path=None, decode=None)[1]
    assert sample_groups(two, X, steps=2, warmup=2).chain.z.shape == (2, 1, 2, 5)
    assert sample_groups(two, X, top=1, below="held", steps=2, warmup=2).chain.z.shape[-1] == 2
    with pytest.raises(ValueError, match=r'needs prior_path= of as_hierarchical; .* below="held"'):
        sample_groups(two, X, top=1)
    with pytest.raises(ValueError, match="pass decode= to as_hierarchical"):
        defend_groups(two, X)


def test_other_functions_name_those_for_groups():
    with pytest.raises(TypeError, match=r"hmc\.sample_groups"):
        sample(tiny(), IMAGES)


def test_pixels_outside_of_the_unit_interval():
    with pytest.raises(ValueError, match=r"x must be in \[0, 1\] with likelihood 'bernoulli'"):
        sample_groups(tiny(), 255 * IMAGES)
