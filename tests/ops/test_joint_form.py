"""The joint form: never above the multiplier form, tight where many layers lose, and sound."""

from itertools import pairwise

import pytest
import torch
from displacement_points import assert_above, draw, made, trained, worst

from vaefast import ops
from vaefast.functional import joint
from vaefast.functional.displacement import Displacement
from vaefast.types import Network

NAMES = ("tanh", "relu", "pairs and others", "residual", "residual of pairs", "one layer")


@pytest.mark.parametrize("name", NAMES)
def test_it_is_never_above_the_multiplier_form(name):
    for net in (made(name), trained(made(name)), worst(made(name))):
        x = draw(5, 3, net.in_features)
        x[0] = 0.0
        radius = torch.tensor([0.01, 0.3, 2.0]).double()
        engine = Displacement(x, net, groups=2)
        assert bool((engine.bound(radius, "joint") <= engine.bound(radius, "multiplier")).all())


def test_a_wide_network_of_four_layers_loses_half():
    """Of what lies above first order."""
    widths = [12, 40, 40, 40, 4]
    weights = [draw(i, n, m) / m**0.5 for i, (m, n) in enumerate(pairwise(widths))]
    net = Network.mlp(weights, [None] * 4, "tanh,tanh,tanh,identity")
    x, radius = 0.3 * draw(9, 2, 12), torch.full((2,), 0.5).double()
    engine = Displacement(x, net)
    near = engine.bound(radius * 1e-6, "joint") * 1e6
    multiplier, both = (engine.bound(radius, form) for form in ("multiplier", "joint"))
    assert bool((both - near < 0.75 * (multiplier - near)).all())
    assert_above(net, x, 0.3 + draw(6, 2, 4).abs(), radius, 200)


@pytest.mark.parametrize("kind", ["relu", "tanh"])
def test_one_hidden_unit_in_closed_form(kind):
    """Where one unit in one dimension deviates, the bound is the largest secant."""
    net = Network.mlp([torch.ones(1, 1), torch.ones(1, 1)], [None] * 2, f"{kind},identity")
    net = net._replace(weights=[w.double() for w in net.weights])
    x, radius = torch.tensor([[0.0], [-0.5]]).double(), torch.tensor([1.0, 2.0]).double()
    bound = ops.net_displacement_bound(x, radius, net, form="joint")[:, 0]
    ends = torch.stack([x[:, 0] + radius, x[:, 0] - radius])
    curve = torch.relu if kind == "relu" else torch.tanh
    secant = ((curve(ends) - curve(x[:, 0])) / (ends - x[:, 0])).amax(0)
    assert bool((bound >= radius * secant * (1 - 1e-12)).all())
    if kind == "relu":
        torch.testing.assert_close(bound, radius * secant, rtol=2e-2, atol=0)


def cheap_multipliers(monkeypatch):
    """A tenth of what D^½ E u costs."""
    original = joint._Form._with
    monkeypatch.setattr(joint._Form, "_with", lambda self, t, k, w: original(self, t, k, 0.1 * w))


def forgotten_inverse(monkeypatch):
    """The largest value over e without what e adds to the other rows."""
    original = joint._Form._eliminated

    def wrong(self, k, G):
        found, proven = original(self, k, dict(G))
        G.pop(k)
        return found._replace(rest=G), proven

    monkeypatch.setattr(joint._Form, "_eliminated", wrong)


@pytest.mark.parametrize("plant", [cheap_multipliers, forgotten_inverse])
def test_planted_errors_are_seen(plant, monkeypatch):
    net = Network.mlp([torch.ones(1, 1).double()] * 2, [None] * 2, "relu,identity")
    engine, radius = Displacement(torch.zeros(1, 1).double(), net), torch.ones(1).double()
    own = engine.bound(radius, "joint").item()
    assert 1.0 <= own < 1.02
    plant(monkeypatch)
    assert engine.bound(radius, "joint").item() < 1.0
