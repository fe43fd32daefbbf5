"""net_displacement_bound of convolutions: by receptive fields, exact where a network is affine."""

import pytest
import torch
from displacement_points import assert_above, assert_exact, draw

from vaefast import ops
from vaefast.functional import displacement, displacement_fields, displacement_layers
from vaefast.functional.displacement import FORMS, Displacement
from vaefast.functional.displacement_intervals import intervals
from vaefast.functional.displacement_walk import Walk
from vaefast.types import Network

FORM = pytest.mark.parametrize("form", FORMS)
NETS = {  # layers with their weights' shapes
    "strides, dilation, groups": [
        ("conv in=2x9x7 stride=2x1 padding=1x2 relu", (4, 2, 3, 3)),
        ("conv in=4x5x9 stride=2x2 padding=1x1 dilation=1x2 groups=2 tanh", (4, 2, 3, 3)),
        ("conv in=4x3x4 padding=1x1 relu", (3, 4, 3, 3)),
        ("linear identity", (4, 36)),
    ],
    "one axis": [
        ("conv in=2x17 stride=2 padding=1 relu", (4, 2, 3)),
        ("conv in=4x9 padding=2 dilation=2 silu", (4, 4, 3)),
        ("conv_transpose in=4x9 stride=2 padding=1 elu:1", (4, 3, 4)),
        ("avg_pool in=3x18 kernel=3 stride=2 padding=1 tanh", ()),
        ("linear identity", (4, 27)),
    ],
    "residual sums": [
        ("conv in=2x6x6 padding=1x1 relu", (2, 2, 3, 3)),
        ("conv in=2x6x6 padding=1x1 softplus", (2, 2, 3, 3)),
        ("conv in=2x6x6 padding=1x1 +0 relu", (2, 2, 3, 3)),
        ("conv in=2x6x6 padding=2x2 dilation=2x2 +-1 identity", (2, 2, 3, 3)),
        ("avg_pool in=2x6x6 kernel=2x2 stride=2x2 padding=0x0 tanh", ()),
        ("upsample_nearest in=2x3x3 scale=2x2 sigmoid", ()),
        ("conv in=2x6x6 stride=3x3 padding=1x1 identity", (1, 2, 3, 3)),
    ],
    "transposed, grouped": [
        ("conv_transpose in=2x2x3 stride=2x3 padding=1x1 output_padding=1x0 relu", (2, 2, 3, 4)),
        ("conv_transpose in=2x4x8 stride=1x2 padding=0x1 dilation=2x1 groups=2 relu", (2, 1, 3, 3)),
        ("upsample_nearest in=2x8x15 scale=1x2 relu", ()),
        ("conv in=2x8x30 stride=4x15 groups=2 identity", (2, 1, 3, 3)),
    ],
    "first of all linear, then images": [
        ("linear relu", (18, 7)),
        ("conv in=2x3x3 padding=1x1 relu", (2, 2, 3, 3)),
        ("conv in=2x3x3 maxmin", (4, 2, 2, 2)),
        ("linear identity", (2, 16)),
    ],
    "outputs that read nothing": [
        ("conv_transpose in=2x4 stride=3 relu", (2, 2, 2)),
        ("conv in=2x11 padding=1 relu", (2, 2, 3)),
        ("linear identity", (2, 22)),
    ],
}
every = pytest.mark.parametrize("name", NETS)


def made(name, affine=False):
    weights, biases, layers = [], [], []
    for seed, (text, shape) in enumerate(NETS[name]):
        fan_in = max(1, torch.Size(shape[1:]).numel())
        weights.append(1.5 * draw(seed, *shape) / fan_in**0.5 if shape else torch.empty(0).double())
        groups = 2 if "groups=2" in text else 1
        channels = 0 if not shape else shape[1] * groups if "transpose" in text else shape[0]
        biases.append(0.1 * draw(seed + 50, channels) if shape else None)
        layers.append(" ".join([*text.split()[:-1], "identity"]) if affine else text)
    return Network(weights, biases, layers)


@every
@pytest.mark.parametrize("radius", [0.02, 1.5])
def test_no_displacement_exceeds_the_bound(name, radius):
    net = made(name)
    x, scale = draw(5, 2, net.in_features), 0.3 + draw(6, 2, net.out_features).abs()
    x[0] = 0.0
    assert_above(net, x, scale, torch.full((2,), radius).double(), 40)


@FORM
@every
def test_exact_on_affine_networks(name, form):
    net = made(name, affine=True)
    assert_exact(net, draw(0, 3, net.in_features), torch.tensor([0.01, 1.0, 9.0]).double(), form)


def whole(walk):
    """The same walk, which pulls whole rows back."""
    walk.blocks = lambda index: None
    return walk


@every
@pytest.mark.parametrize("B", [1, 3])
def test_receptive_fields_hold_all_that_whole_rows_do(name, B):
    net = made(name)
    x, radius = draw(7, B, net.in_features), torch.linspace(0.01, 2.0, B).double()
    rows = slice(0, B)
    walk = Walk(x, net)
    found, other = (intervals(w, rows, radius) for w in (walk, whole(Walk(x, net))))
    for pair in zip(found.low + found.high, other.low + other.high):
        if pair[0] is not None:
            torch.testing.assert_close(*pair, rtol=1e-12, atol=1e-13)
    spatial = "linear" not in net.layers[0] and "nothing" not in name
    assert (walk.blocks(0) is not None) == spatial


@every
def test_norms_of_the_first_rows(name):
    walk = Walk(draw(0, 1, made(name).in_features), made(name))
    torch.testing.assert_close(walk.first_norms, walk.maps[0].rows().norm(dim=1))


def test_norms_of_pooled_and_repeated_rows():
    for text in ("avg_pool in=2x7 kernel=3 stride=2 padding=1", "upsample_nearest in=2x3 scale=3"):
        n = 14 if "pool" in text else 6
        walk = Walk(draw(0, 1, n), Network([torch.empty(0).double()], [None], [f"{text} tanh"]))
        torch.testing.assert_close(walk.first_norms, walk.maps[0].rows().norm(dim=1))


def test_layers_too_large_for_gram_matrices(monkeypatch):
    monkeypatch.setattr(displacement, "GRAMS", 20)
    net = made("one axis")
    x, radius = draw(0, 2, net.in_features), torch.full((2,), 0.3).double()
    engine = Displacement(x, net)
    assert "at most 20 features in each layer but the first and the last, this one has 54" in (
        engine.why_affine
    )
    smaller = ops.net_displacement_bound(x, radius, net)
    assert torch.equal(smaller, ops.net_displacement_bound(x, radius, net, form="affine"))
    with pytest.raises(ValueError, match=r'at most 20 features .* form="affine" takes all'):
        ops.net_displacement_bound(x, radius, net, form="multiplier")
    with pytest.raises(ValueError, match="at most 20 features"):
        engine.ellipsoid(radius)


def transposed_filter(monkeypatch):
    original = displacement_fields.adjoint_window

    def wrong(layer, images, weight, pads):
        flipped = weight.flip(-1) if weight.numel() else weight
        return original(layer, images, flipped, pads)

    monkeypatch.setattr(displacement_fields, "adjoint_window", wrong)


def forgotten_padding(monkeypatch):
    original = displacement_fields._read

    def wrong(layer, axis, start, stop):
        return original(layer._replace(padding=(0,) * len(layer.stride)), axis, start, stop)

    monkeypatch.setattr(displacement_fields, "_read", wrong)


def forgotten_magnitude(monkeypatch):
    monkeypatch.setattr(displacement_layers.LayerMap, "spread", lambda self, h: self.apply(h).abs())


@pytest.mark.parametrize("plant", [transposed_filter, forgotten_padding, forgotten_magnitude])
def test_planted_errors_are_seen(plant, monkeypatch):
    """By points above the bound, not only by whole rows."""
    net = made("strides, dilation, groups")
    x, radius = draw(5, 2, net.in_features), torch.full((2,), 0.02).double()
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        assert_above(net, x, torch.ones(2, 4).double(), radius, 60)
