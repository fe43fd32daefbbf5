"""How strong the attack behind an empirical margin is: starts, steps, restarts, bad gradients."""

import math

import pytest
import torch
from torch import nn

from vaefast.attacks import AttackWarning
from vaefast.certify import empirical, empirical_margin
from vaefast.models import MLPVAE, VAE, as_vae

QUICK = {"grid": 10, "bisections": 6, "noise_samples": 4}


def images(n, side=4):
    return torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(3)).double()


@pytest.fixture
def wide(linear):
    """400 entries, of which two directions move μ, one ten times as far as the other."""
    generator = torch.Generator().manual_seed(0)
    top = torch.linalg.qr(torch.randn(400, 2, generator=generator, dtype=torch.float64))[0]
    return linear((top * torch.tensor([3.0, 0.3])).T, [0.05, 0.05], torch.eye(400, 2))


def test_two_restarts_begin_along_the_metric_s_top_direction(wide):
    """One step from a random start among 400 directions ends where the draws pull it."""
    x = torch.rand(5, 400, generator=torch.Generator().manual_seed(1)).double()
    options = {"r_max": 1.0, "steps": 1, "restarts": 2, **QUICK}
    usual = empirical_margin(wide, x, 0.8, **options).margin
    named = empirical_margin(wide, x, 0.8, init="geometric", **options).margin
    random = empirical_margin(wide, x, 0.8, init="random", **options).margin
    assert torch.equal(usual, named)
    assert bool((usual <= random).all())
    assert bool((usual < 0.9 * random).any())
    assert usual.tolist() == pytest.approx([0.8 / 3.0] * 5, rel=0.05)


def test_steps_adapt_unless_another_rule_is_named():
    """Of a steep model, few steps: smaller breaks than by steps that shrink on schedule."""
    vae, x = MLPVAE((1, 4, 4), (24, 24), 4, "tanh", seed=2).double().eval(), images(16)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.mul_(2.0)
    options = {"r_max": 4.0, "steps": 8, "restarts": 1, **QUICK}
    usual = empirical_margin(vae, x, 1.5, **options).margin
    adaptive = empirical_margin(vae, x, 1.5, optimizer="apgd", **options).margin
    scheduled = empirical_margin(vae, x, 1.5, optimizer="pgd", **options).margin
    assert torch.equal(usual, adaptive)
    assert bool(scheduled.isfinite().all())
    assert float(usual.mean()) < float(scheduled.mean())


class Counting(nn.Module):
    """Not lowered, so that each evaluation is a call."""

    def __init__(self):
        super().__init__()
        self.mean, self.logvar, self.up = nn.Linear(16, 2), nn.Linear(16, 2), nn.Linear(2, 16)
        self.rows = []

    def encode(self, x):
        self.rows.append(len(x))
        x = torch.sin(x.flatten(1))
        return self.mean(x), self.logvar(x) - 3.0

    def decode(self, z):
        return self.up(z).view(-1, 1, 4, 4)


def test_restarts_are_rows_of_one_batch():
    """About as many calls for six restarts as for two, and 12 rows at once for two inputs."""
    torch.manual_seed(0)
    model = Counting().double().eval()
    vae, calls = as_vae(model, likelihood="gaussian"), {}
    for restarts in (2, 6):
        model.rows.clear()
        options = {"r_max": 3.0, "grid": 2, "bisections": 0, "steps": 4, "noise_samples": 2}
        empirical_margin(vae, images(2), 1e3, restarts=restarts, **options)
        calls[restarts] = len(model.rows)
        assert max(model.rows) >= 2 * restarts
    assert calls[6] <= 1.2 * calls[2]  # draws of three times the rows may take a chunk more


class Hole(nn.Module):
    """The identity, of whose second entry autograd gives NaN: 0·NaN where the root is not taken."""

    def forward(self, x):
        second = x[:, 1:2]
        hole = torch.where(second > 50.0, (second - 50.0).sqrt(), 0.0)
        return torch.cat([x[:, :1], second + hole, x[:, 2:]], dim=1)


class Rounds(nn.Module):
    """Nearly the identity, with a derivative of 0."""

    def forward(self, z):
        return (z * 64.0).round() / 64.0


def of_one_latent(before=None, after=None):
    mean, up = nn.Linear(3, 1, bias=False), nn.Linear(1, 3, bias=False)
    mean.weight.data = torch.tensor([[1.0, 0.0, 0.0]])
    up.weight.data = torch.tensor([[1.0], [0.0], [0.0]])
    return VAE(
        encoder_mean=nn.Sequential(*([before] if before else []), mean),
        encoder_logvar=torch.tensor([2.0 * math.log(0.05)]),
        decoder=nn.Sequential(*([after] if after else []), up),
        likelihood="gaussian",
    ).double()


def test_a_gradient_that_is_not_finite_is_counted_and_the_rest_is_followed():
    """The second entry's is NaN: others count as they are, and the search goes on."""
    x = torch.rand(3, 3).double()
    options = {"r_max": 2.0, "steps": 5, "restarts": 3, **QUICK}
    with pytest.warns(AttackWarning, match="not finite"):
        found = empirical_margin(of_one_latent(before=Hole()), x, 0.5, **options)
    assert bool((found.nonfinite_gradients > 0).all())
    assert bool(found.x_adv[found.found].isfinite().all())
    clean = empirical_margin(of_one_latent(), x, 0.5, **options)
    assert not bool(clean.nonfinite_gradients.any())
    assert bool((clean.margin < 0.6).all())
    assert bool((clean.margin <= found.margin).all())


def test_without_a_gradient_random_points_are_tried_and_it_is_said():
    """A break among them counts; where there is none the reason says what was not tried."""
    x, options = torch.rand(3, 3).double(), {"steps": 5, "restarts": 4, **QUICK}
    vae = of_one_latent(after=Rounds())
    far = empirical_margin(vae, x, 0.5, r_max=3.0, **options)
    assert bool(far.found.any())
    with pytest.warns(AttackWarning, match="no attack had"):
        none = empirical_margin(vae, x, 100.0, r_max=1.0, **options)
    assert set(none.reasons) == {empirical.NO_GRADIENT}
    assert none.margin.tolist() == [math.inf] * 3
