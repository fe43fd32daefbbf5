"""Forward mode, torch.func and vmap on the ops: a right derivative, or one line with the way out.

``torch.func.jvp`` and ``jacfwd`` through an op gave zeros without a word, and an estimate that was
built on them was zero; vmap and ``torch.func.grad`` failed in terms of the dispatcher.
"""

import pytest
import torch
from samples import SAMPLES, Shape, flat_arguments
from torch.autograd import forward_ad

from vaefast import ops
from vaefast.bench.cases import network, posterior
from vaefast.ops._register import registered
from vaefast.types import Network

RULED = {"net_forward": "z", "net_potential": "z", "log_likelihood": "out"}
ONE = list({sample.op: sample for sample in SAMPLES}.values())
ALL = pytest.mark.parametrize("sample", ONE, ids=lambda s: s.op)


@pytest.fixture(autouse=True)
def _fast(require):
    require("net_forward", "cpp")


def backend_of(sample):
    """The fast backend, where the op has one here."""
    return "cpp" if "cpp" in registered[sample.op].implementations else "reference"


def places(arguments):
    """Every floating tensor among the arguments, and how to put another in its place."""
    for name, value in arguments.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            yield name, value, lambda t, name=name: {**arguments, name: t}
        if isinstance(value, Network):
            first, *rest = value.weights
            yield (
                f"{name}.weights",
                first,
                lambda t, name=name, value=value, rest=rest: {
                    **arguments,
                    name: value._replace(weights=[t, *rest]),
                },
            )


@ALL
def test_a_tangent_is_used_or_refused(sample):
    """No argument of any op loses its tangent; what is computed is what the reference computes."""
    arguments, seen = sample.make(torch.float64, Shape()), 0
    if backend_of(sample) == "reference":
        pytest.skip("it has no fast backend here")
    for name, value, given in places(arguments):
        seen += 1
        with forward_ad.dual_level():
            dual = given(forward_ad.make_dual(value.clone(), torch.ones_like(value)))
            if RULED.get(sample.op) != name:
                with pytest.raises(RuntimeError, match=r'forward-mode.*backend="reference"'):
                    sample.call(dual, None)
                continue
            found, expected = (
                [forward_ad.unpack_dual(t).tangent for t in sample.call(dual, backend)]
                for backend in (None, "reference")
            )
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert seen


@ALL
def test_a_tangent_reaches_no_kernel(sample):
    """Also past the public function, as in a compiled graph."""
    arguments = sample.make(torch.float64, Shape())
    flat = flat_arguments(sample, arguments)
    op = getattr(torch.ops.vaefast, sample.op).default
    with forward_ad.dual_level():
        flat[0] = forward_ad.make_dual(flat[0].clone(), torch.ones_like(flat[0]))
        with pytest.raises(RuntimeError, match="no forward-mode derivative"):
            op(*flat[:-1], "reference")


@pytest.fixture
def first(sample):
    """A call of the op as a function of one of its tensors, and that tensor."""
    if backend_of(sample) == "reference":
        pytest.skip("it has no fast backend here")
    _, value, given = next(places(sample.make(torch.float64, Shape())))
    return (lambda t: sample.call(given(t), None)), value.clone()


@ALL
def test_vmap_says_the_way_out(sample, first):
    call, value = first
    with pytest.raises(RuntimeError, match=r"cannot run under vmap; .*pass all rows in one call"):
        torch.func.vmap(call)(torch.stack([value, value]))


@ALL
def test_a_torch_func_gradient_says_the_way_out(sample, first):
    call, value = first
    with pytest.raises(RuntimeError, match='backend="reference"'):
        torch.func.grad(lambda t: call(t)[0].sum())(value)


CALLS = {
    "net_forward": lambda case, z, **how: ops.net_forward(z, case.net, **how),
    "net_potential": lambda case, z, **how: torch.cat(
        [t.reshape(len(z), -1) for t in ops.net_potential(z, case.x, case.net, **how, **LIKE)], 1
    ),
}
LIKE = {"likelihood": "bernoulli"}


@pytest.mark.parametrize("activation", ["tanh", "silu", "relu", "maxmin"])
@pytest.mark.parametrize("name", CALLS)
def test_jacobians_by_forward_mode(name, activation):
    case = posterior(3, 1, activations=f"{activation},{activation},identity")

    def jacobian(**how):
        return torch.func.jacfwd(lambda z: CALLS[name](case, z, **how))(case.z)

    found, expected = jacobian(), jacobian(backend="reference")
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("op", ["net_jvp", "net_vjp"])
def test_vmap_over_probes_is_more_probes(op):
    net, x = network((6, 5, 4), "tanh,identity"), torch.rand(3, 6, dtype=torch.float64)
    width = 6 if op == "net_jvp" else 4
    for shape in ((7, 3, 2, width), (7, 2, width)):  # of each input, or shared
        v = torch.rand(shape, dtype=torch.float64)
        run = lambda probes: getattr(ops, op)(x, probes, net, full=True)  # noqa: E731
        y, sq, products = torch.func.vmap(run)(v)
        for i in range(7):
            expected = run(v[i])
            torch.testing.assert_close((y[i], sq[i], products[i]), expected)


def test_both_kinds_of_derivative_at_once_are_refused():
    net = network((6, 5), "tanh")
    z = torch.rand(3, 6, dtype=torch.float64, requires_grad=True)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(z, torch.ones_like(z))
        with pytest.raises(RuntimeError, match='backend="reference"'):
            ops.net_forward(dual, net)


def test_older_vmap_says_the_way_out():
    net, z = network((6, 5), "tanh"), torch.rand(3, 6, dtype=torch.float64, requires_grad=True)
    out = ops.net_forward(z, net)
    cotangents = torch.eye(15, dtype=torch.float64).view(15, 3, 5)
    with pytest.raises(RuntimeError, match="cannot run under vmap"):
        torch.autograd.grad(out, z, cotangents, is_grads_batched=True)
