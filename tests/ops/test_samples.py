"""What every op passes on its samples: opcheck, one graph, NaN rows, any cut, no reference."""

import pytest
import torch
from samples import SAMPLES, Shape, flat_arguments, part, same

from vaefast import ops
from vaefast.runtime import backends

SMALL = Shape()
DIFFERENTIABLE = ("net_forward", "net_potential", "log_likelihood")


@pytest.fixture(params=SAMPLES, ids=lambda s: f"{s.op} {s.label}".strip())
def sample(request, backend, require):
    require(request.param.op, backend, torch.float64)
    return request.param


@pytest.fixture
def arguments(sample):
    return sample.make(torch.float64, SMALL)


def test_every_op_has_a_sample():
    assert {sample.op for sample in SAMPLES} == set(backends.ops())


@pytest.mark.parametrize("requires_grad", [False, True])
def test_registered_op_passes_opcheck(sample, arguments, backend, requires_grad):
    if requires_grad and sample.op not in DIFFERENTIABLE:
        pytest.skip("it has no derivative")
    flat = (*flat_arguments(sample, arguments)[:-1], backend)
    flat[0].requires_grad_(requires_grad)
    torch.library.opcheck(getattr(torch.ops.vaefast, sample.op).default, flat)


def test_two_calls_give_the_same_bits(sample, arguments, backend):
    for one, two in zip(sample.call(arguments, backend), sample.call(arguments, backend)):
        assert same(one, two)


def test_the_reference_s_numbers(sample, arguments, backend):
    found, expected = (sample.call(arguments, name) for name in (backend, "reference"))
    close = 1e-5 if backend == "triton" else 1e-9  # whose normals are float32
    torch.testing.assert_close(found, expected, rtol=close, atol=close)


def test_no_fast_backend_calls_a_reference(sample, arguments, backend, break_references):
    if backend == "reference":
        pytest.skip("it is the reference")
    break_references()
    sample.call(arguments, backend)


def test_any_cut_of_the_batch_gives_the_same_rows(sample, arguments, backend):
    """To round-off here; test_same_bits.py has the bits of the C++ kernels."""
    whole = sample.call(arguments, backend)
    for rows in (slice(0, 1), slice(1, 3)):
        found = sample.call(sample.cut(arguments, SMALL.B, rows), backend)
        expected = tuple(part(t, SMALL.B, rows) for t in whole)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_a_spoiled_row_is_nan_and_the_others_are_untouched(sample, arguments, backend):
    if sample.spoiled is None:
        pytest.skip("no row of its results is ever NaN")
    name, rows = sample.spoiled
    clean = sample.call(arguments, backend)[0]
    given = arguments[name].clone()
    given.view(len(given), -1)[-1, 0] = torch.nan
    found = sample.call({**arguments, name: given}, backend)[0]
    bad = torch.zeros(len(found), dtype=torch.bool)
    bad[rows] = True
    assert found[bad].isnan().all()
    torch.testing.assert_close(found[~bad], clean[~bad], rtol=1e-12, atol=1e-12)


def test_one_graph(sample, arguments, backend):
    torch._dynamo.reset()
    expected = sample.call(arguments, backend)
    op = getattr(ops, sample.op)
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager", dynamic=False)
    result = compiled(**arguments, backend=backend)
    if result is None:
        result = arguments["z"], arguments["p"]  # written
    found = (result,) if isinstance(result, torch.Tensor) else tuple(result)
    torch.testing.assert_close(found, expected)
