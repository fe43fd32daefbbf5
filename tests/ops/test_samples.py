"""What every op passes on its samples: opcheck, one graph, NaN rows, same bits, no reference."""

import importlib.util
from pathlib import Path

import pytest
import torch

from vaefast import ops
from vaefast.ops._register import registered
from vaefast.runtime import backends

spec = importlib.util.spec_from_file_location("samples", Path(__file__).parent / "samples.py")
samples = importlib.util.module_from_spec(spec)
spec.loader.exec_module(samples)
SAMPLES = samples.SAMPLES


@pytest.fixture(params=SAMPLES, ids=lambda s: f"{s.op} {s.label}".strip())
def sample(request, backend, require):
    require(request.param.op, backend, torch.float64)
    return request.param


def test_every_op_has_a_sample():
    assert {sample.op for sample in SAMPLES} == set(backends.ops())


def flat_arguments(op, run):
    """What the registered op is given in a call of the public function."""
    given, implementations = [], registered[op].implementations
    reference = implementations["reference"]
    implementations["reference"] = lambda call: given.append(call) or reference(call)
    try:
        run("reference")
    finally:
        implementations["reference"] = reference
    net, call = registered[op].layout.net, given[-1]
    return list(call) if net is None else [*call[:net], *call[net], *call[net + 1 :]]


def test_registered_op_passes_opcheck(sample, backend):
    arguments = (*flat_arguments(sample.op, sample.run)[:-1], backend)
    torch.library.opcheck(getattr(torch.ops.vaefast, sample.op).default, arguments)


def test_two_calls_give_the_same_bits(sample, backend):
    for one, two in zip(sample.run(backend), sample.run(backend)):
        assert torch.equal(one, two)


def test_the_reference_s_numbers(sample, backend):
    found, expected = sample.run(backend), sample.run("reference")
    close = 1e-5 if backend == "triton" else 1e-9  # whose normals are float32
    torch.testing.assert_close(found, expected, rtol=close, atol=close)


def test_no_fast_backend_calls_a_reference(sample, backend, break_references):
    if backend == "reference":
        pytest.skip("it is the reference")
    made = sample.make(torch.float64)
    break_references()
    sample._replace(make=lambda dtype: made).run(backend)


def test_a_spoiled_row_is_nan_and_the_others_are_untouched(sample, backend):
    if sample.rows is None:
        pytest.skip("no row of its results is ever NaN")
    clean, found = sample.run(backend)[0], sample.run(backend, spoil=True)[0]
    spoiled = torch.zeros(len(found), dtype=torch.bool)
    spoiled[sample.rows[1]] = True
    assert (
        found[spoiled].isnan().flatten(1).all() if found.ndim > 1 else found[spoiled].isnan().all()
    )
    torch.testing.assert_close(found[~spoiled], clean[~spoiled], rtol=1e-12, atol=1e-12)


def test_one_graph(sample, backend):
    torch._dynamo.reset()
    arguments, options = sample.make(torch.float64)
    op = getattr(ops, sample.op)
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager", dynamic=False)
    result = compiled(*arguments, **options, backend=backend)
    if result is not None:  # an op that writes has its own test
        found = (result,) if isinstance(result, torch.Tensor) else tuple(result)
        torch.testing.assert_close(found, sample.run(backend))
