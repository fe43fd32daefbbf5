"""Bounds of log σ: of heads that return σ or σ², with a floor or a clamp, and why there is none."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vaefast as vf
from vaefast.certify.heads import heads, why_not
from vaefast.certify.local import moved
from vaefast.models.prepare import prepare

HEADS = {  # and the factor of σ
    "softplus": (F.softplus, 1.0),
    "softplus and a floor": (lambda t: F.softplus(t) + 1e-4, 1.0),
    "softplus, twice as steep": (lambda t: F.softplus(t, 2.0) + 1e-4, 1.0),  # of 2t
    "softplus of at least": (lambda t: F.softplus(t).clamp(min=1e-3), 1.0),
    "softplus, clamped and shifted": (lambda t: F.softplus(t).clamp(1e-4, 4.0) + 1e-4, 1.0),
    "exp and a floor": (lambda t: t.exp() + 1e-5, 0.5),  # of 2t
    "sigmoid and a floor": (lambda t: 0.01 + 0.9 * torch.sigmoid(t), 1.0),
    "clamp": (lambda t: t.clamp(0.2, 1.3), 5.0),
}
OUTPUTS = {  # what the module returns of σ or σ², and its factor beside that of σ
    "std": (lambda head: head, 1.0),
    "var": (lambda head: head, 0.5),
    "logstd": (lambda head: lambda t: head(t).log(), 1.0),
    "logvar": (lambda head: lambda t: head(t).log(), 0.5),
}


class Model(nn.Module):
    """Its σ head's layer reaches from −10 to 10, where logarithms are steepest and flat."""

    def __init__(self, head):
        super().__init__()
        self.trunk, self.mean, self.scale = nn.Linear(12, 8), nn.Linear(8, 3), nn.Linear(8, 3)
        self.scale.weight.data.mul_(10.0)
        self.up, self.head = nn.Linear(3, 12), head

    def encode(self, x):
        h = torch.tanh(self.trunk(x.flatten(1)))
        return self.mean(h), self.head(self.scale(h))

    def decode(self, z):
        return self.up(z).view(-1, 3, 4)


def wrapped(head, output):
    torch.manual_seed(0)
    return vf.as_vae(Model(head).double().eval(), encoder_output=output, likelihood="gaussian")


def points(n):
    generator = torch.Generator().manual_seed(1)
    return 4.0 * torch.randn(n, 3, 4, generator=generator, dtype=torch.float64)


def log_std(vae, x):
    return vae.posterior(x)[1].log()


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("name", HEADS)
def test_log_std_moves_by_no_more_than_its_factor_of_the_network(name, output):
    """|Δ log σ_i| ≤ factor·|Δa_i| on pairs far apart and near, and no factor could be half."""
    (head, factor), (returned, share) = HEADS[name], OUTPUTS[output]
    vae, x = wrapped(returned(head), output), points(400)
    near = x + 1e-3 * x.flip(0)
    (found,) = heads(prepare(vae, x).maps)
    assert found.factor == factor * share
    for other in (x.flip(0), near):
        a = [vf.ops.net_forward(p.flatten(1), found.net)[:, 3:] for p in (x, other)]
        rise = (log_std(vae, other) - log_std(vae, x)).abs()
        most = found.factor * (a[1] - a[0]).abs()
        assert bool((rise <= most * (1 + 1e-9) + 1e-12).all())
    assert float((rise / most).nan_to_num(0.0).detach().max()) > 0.7


@pytest.mark.parametrize("output", ["std", "var"])
@pytest.mark.parametrize("name", ["softplus and a floor", "exp and a floor", "clamp"])
@pytest.mark.parametrize("form", ["affine", "smaller"])
def test_no_point_of_a_ball_moves_log_std_beyond_the_bound(name, output, form):
    """At random and along the steepest directions of log σ at x."""
    vae, x = wrapped(HEADS[name][0], output), points(12)
    radius = torch.logspace(-3, 0, len(x), dtype=torch.float64)
    bound = moved(prepare(vae, x), radius, form).scale
    jacobian = torch.func.vmap(torch.func.jacrev(lambda p: log_std(vae, p[None])[0]))(x)
    top = torch.linalg.svd(jacobian.flatten(2), full_matrices=False).Vh
    random = torch.randn(len(x), 200, 12, generator=torch.Generator().manual_seed(2)).double()
    delta = F.normalize(torch.cat([top, -top, random], 1), dim=2) * radius[:, None, None]
    other = (x.flatten(1)[:, None] + delta).view(-1, 3, 4)
    rise = (log_std(vae, other).view(len(x), -1, 3) - log_std(vae, x)[:, None]).norm(dim=2)
    assert bool((rise.amax(1) <= bound).all())
    assert float((rise.amax(1) / bound).max()) > 0.5


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_floor_costs_nothing_of_the_margin(output):
    """σ with a floor has a margin like that without one, by draws at much the same σ."""
    returned = OUTPUTS[output][0]
    x, options = points(4), {"method": "local", "samples": 500}
    floor, plain = (
        vf.certify.margin(wrapped(returned(head), output), x, 6.0, **options).margin
        for head in (lambda t: F.softplus(0.1 * t) + 1e-6, lambda t: F.softplus(0.1 * t))
    )
    assert bool((plain > 0).any())
    torch.testing.assert_close(floor, plain, rtol=1e-3, atol=0.0)


MIXING = torch.eye(3, dtype=torch.float64) + 0.1
REFUSED = {
    "softplus less a constant": (lambda t: F.softplus(t) - 1e-6, "after softplus that is more"),
    "softplus of others": (lambda t: F.softplus(t) @ MIXING, "after softplus that is more"),
    "relu": (lambda t: F.relu(t) + 0.1, "ends in identity after relu"),
    "clamp from 0": (lambda t: t.clamp(0.0, 1.0) + 0.1, "ends in identity after clamp"),
}


@pytest.mark.parametrize("output", ["std", "var"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_slope_is_refused_with_its_reason(name, output):
    head, reason = REFUSED[name]
    vae, x = wrapped(head, output), points(2)
    assert reason in why_not(prepare(vae, x).maps)
    assert reason in str(vf.explain(vae, x))
    with pytest.raises(ValueError, match="of σ, which ends in"):
        vf.certify.margin(vae, x, 1.0, method="local")
