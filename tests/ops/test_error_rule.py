"""The ops err at most twice as much as eager torch at the same dtype, both against float64."""

import pytest
import torch
from samples import SAMPLES, Shape

import vaefast as vf
from vaefast import ops
from vaefast.bench.cases import network
from vaefast.types import Network

ULPS = 16  # of the largest entry, beside twice eager's error
DECODERS = {
    "32-512-512-784": ((32, 512, 512, 784), "tanh,tanh,identity"),
    "17-101-334-300": ((17, 101, 334, 300), "relu,maxmin,identity"),
    "8-64-1100": ((8, 64, 1100), "silu,identity"),
    "published": ((64, 784), "published"),
    "mixed": ((5, 72), "mixed"),
}
ENCODERS = {
    "784-512-512-32": ((784, 512, 512, 32), "tanh,tanh,identity"),
    "300-333-100-17": ((300, 333, 100, 17), "relu,relu,identity"),
    "1100-64-8": ((1100, 64, 8), "gelu,identity"),
    "published": ((784, 64), "published"),
    "mixed": ((72, 5), "mixed"),
}
ROWS = (1, 3, 40)  # one row and few take other routes than many
COUNTING = ("decode_distance",)  # whose hits are whole numbers; its own tests find distances
RULED = [s for s in SAMPLES if torch.float32 in s.dtypes and s.op not in COUNTING]


def widened(value):
    """The same numbers in float64."""
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, Network):
        return value._replace(
            weights=[w.double() for w in value.weights],
            biases=[None if b is None else b.double() for b in value.biases],
        )
    return value


def assert_errs_little(run, narrow, wide, eps=2**-23):
    truth, ours, eager = run(wide, "reference"), run(narrow, None), run(narrow, "reference")
    for exact, found, plain in zip(truth, ours, eager, strict=True):
        if not exact.is_floating_point():
            assert torch.equal(found, plain)
            continue
        exact = exact.double()
        error, allowed = (found.double() - exact).abs().max(), (plain.double() - exact).abs().max()
        ulps = ULPS * eps * exact.abs().max()
        assert error <= 2 * allowed + ulps, f"{error / ulps * ULPS:.1f} ulp, eager {allowed:.2g}"


def assert_sample_errs_little(sample, shape, backend):
    narrow = sample.make(torch.float32, shape)
    if not (support := sample.supports(narrow, backend)):
        pytest.skip(support.reason)
    wide = {name: widened(value) for name, value in narrow.items()}
    assert_errs_little(lambda given, name: sample.call(given, name or backend), narrow, wide)


@pytest.mark.parametrize("sample", RULED, ids=lambda s: f"{s.op} {s.label}".strip())
def test_few_rows_on_every_backend(sample, backend, require):
    require(sample.op, backend)
    assert_sample_errs_little(sample, Shape(5, 2), backend)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("sample", RULED, ids=lambda s: f"{s.op} {s.label}".strip())
def test_decoders(sample, name, rows, require):
    require(sample.op, "cpp")
    assert_sample_errs_little(sample, Shape(rows, 1, *DECODERS[name]), "cpp")


@pytest.mark.parametrize("whitened", [False, True])
@pytest.mark.parametrize("name", ENCODERS)
def test_gram(name, whitened):
    if not (support := vf.supports("net_jacobian_gram", "cpp")):
        pytest.skip(support.reason)
    widths, activations = ENCODERS[name]
    net = network(widths, activations, dtype=torch.float32)
    x = torch.rand(9, widths[0], generator=torch.Generator().manual_seed(0))
    inv_std = 1 + torch.rand(9, widths[-1], generator=torch.Generator().manual_seed(1))
    narrow = {"x": x, "net": net, "inv_std": inv_std if whitened else None}

    def run(given, backend):
        return (ops.net_jacobian_gram(**given, backend=backend or "cpp"),)

    assert_errs_little(run, narrow, {name: widened(value) for name, value in narrow.items()})
