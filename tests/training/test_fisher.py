"""The Fisher penalty: its trace, the trace's gradient, and which encoding they come from."""

import math

import formulas
import pytest
import torch
from torch import nn

from vaefast.models import MLPVAE, VAE
from vaefast.training import BetaELBO, Fisher, Step
from vaefast.training.fisher import fisher_trace


def model():
    vae = MLPVAE((1, 4, 4), (12,), 3).double()
    with torch.no_grad():
        vae.encoder.logvar.bias.fill_(-1.0)
    return vae


def rows(count=7):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 1, 4, 4, generator=generator, dtype=torch.float64)


def step():
    return Step(torch.Generator().manual_seed(3), 100)


def test_the_trace_is_that_of_the_two_jacobians():
    vae, x = model(), rows(3)
    exact = formulas.fisher(vae, x)
    generator = Step(torch.Generator().manual_seed(0), 9)
    draws = torch.stack([fisher_trace(vae, x, generator) for _ in range(600)]).detach()
    assert ((draws.mean(0) - exact).abs() < 4 * draws.std(0) / math.sqrt(600)).all()
    whole = Fisher(2.0, 0.3, probes=2).terms(vae, x, step())
    plain = BetaELBO(2.0).terms(vae, x, step())
    assert torch.allclose(whole["loss"], plain["loss"] + 0.3 * whole["fisher_trace"])


class Plain(MLPVAE):
    """The same functions, by a method of its own: its trace has an encoding of its own."""

    def encode(self, x, context=None):
        return super().encode(x, context)


@pytest.mark.parametrize("probes", [1, 3])
def test_one_encoding_serves_the_bound_and_the_trace(probes, monkeypatch):
    calls, q, found = [], VAE.q, []
    monkeypatch.setattr(VAE, "q", lambda *given: calls.append(given[0]) or q(*given))
    for vae in (MLPVAE((1, 4, 4), (12,), 3).double(), Plain((1, 4, 4), (12,), 3).double()):
        terms = Fisher(2.0, 0.3, probes=probes).terms(vae, rows(), step())
        terms["loss"].sum().backward()
        found.append([p.grad for p in vae.parameters()] + [terms["fisher_trace"].detach()])
    assert [type(vae) for vae in calls] == [MLPVAE, Plain, Plain]
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def test_dropout_stays_out_of_the_trace():
    """So it needs a second encoding."""
    vae, x = model(), rows()
    expected = Fisher(2.0, 0.3).terms(vae, x, step())["fisher_trace"]
    vae.encoder.trunk.append(nn.Dropout(0.9))
    found = Fisher(2.0, 0.3).terms(vae.train(), x, step())["fisher_trace"]
    torch.testing.assert_close(found, expected)


def test_the_gradient_of_the_trace_is_that_of_the_formula():
    """Differences of the exact trace, averaged over the probes' own distribution."""
    vae, x = model(), rows(2)
    weight = vae.encoder.trunk[1].weight
    source = Step(torch.Generator().manual_seed(0), 9)
    (found,) = torch.autograd.grad(fisher_trace(vae, x, source, 3000).sum(), weight)
    (exact,) = torch.autograd.grad(formulas.fisher(vae, x).sum(), weight)
    assert (found - exact).norm() < 0.1 * exact.norm()
