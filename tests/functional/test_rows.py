"""Chunks of rows: the pieces fit together, and the work stays within the memory budget."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import vaefast as vf
from vaefast import ops
from vaefast.bench.cases import images, network, posterior
from vaefast.functional.rows import chunked, finite, nan_where_bad
from vaefast.ops._register import registered

B = 1600
BUDGET = 1 << 18


class Peak(TorchDispatchMode):
    """The most bytes that tensors made inside the ``with`` block held at one time."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self.seen = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        before = {id(t.untyped_storage()) for t in tree_leaves(args) if isinstance(t, torch.Tensor)}
        result = function(*args, **(kwargs or {}))
        for t in tree_leaves(result):
            if isinstance(t, torch.Tensor) and id(t.untyped_storage()) not in before:
                self._add(t.untyped_storage())
        return result

    def _add(self, storage):
        if storage in self.seen:
            return
        self.seen.add(storage)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._drop, storage.nbytes())

    def _drop(self, size):
        self.live -= size


def calls():
    """Each op's arguments for B inputs, about a hundred times what the budget holds at once."""
    z, x, net = posterior(B, 1, widths=(8, 64, 64, 32), activations="tanh,tanh,identity")
    like = {"likelihood": "bernoulli"}
    encoder = network((32, 64, 64, 8), "tanh,tanh,identity")
    step, index = torch.full((B,), 0.01, dtype=torch.float64), torch.arange(B)
    U, out = torch.zeros(B, dtype=torch.float64), images(B, 32, dtype=torch.float64).x
    trajectory = {**like, "step": step, "leapfrog": 2}
    return {
        "net_forward": (z, net),
        "log_likelihood": (out, x, like),
        "net_potential": (z, x, net, like),
        "net_trajectory": (z, z, z, x, net, trajectory),
        "net_trajectory_vjp": (z, z, z, x, net, trajectory),
        "net_chain": (z, U, z, x, net, {**trajectory, "steps": 1, "thin": 1, "index": index}),
        "net_jvp": (x, x[:6], encoder),
        "net_vjp": (x, z[:6], encoder),
        "net_jacobian_gram": (x, encoder),
        "decode_distance": (z, z, x, step, net, {"samples": 3, "index": index}),
    }


def specification(op, *arguments):
    """A call of the op's reference alone, outside torch's dispatcher."""
    options = arguments[-1] if isinstance(arguments[-1], dict) else {}
    arguments = arguments[: len(arguments) - bool(options)]
    given, implementations = [], registered[op].implementations
    reference = implementations["reference"]
    implementations["reference"] = lambda call: given.append(call) or reference(call)
    getattr(ops, op)(*arguments, **options, backend="reference")
    implementations["reference"] = reference
    return lambda: reference(given[0])


@pytest.mark.parametrize("op", calls())
def test_working_memory_stays_within_the_budget(op):
    """Beyond the inputs and the results; without a budget the work is many times as large."""
    call = specification(op, *calls()[op])
    with Peak() as free:
        results = call()
    size = sum(t.nbytes for t in tree_leaves(results) if t is not None)
    del results
    vf.set_memory(BUDGET)
    with Peak() as bound:
        call()
    assert bound.peak <= size + BUDGET
    assert free.peak >= size + 4 * BUDGET


def test_pieces_fit_together_in_order():
    x = torch.arange(10)
    vf.set_memory(3)
    rows, pairs = chunked(lambda rows: (x[rows], x[rows].repeat_interleave(2)), 10, 1)
    assert torch.equal(rows, x)
    assert torch.equal(pairs, x.repeat_interleave(2))


def test_pieces_stay_differentiable():
    x = torch.arange(5.0, requires_grad=True)
    vf.set_memory(2)
    (square,) = chunked(lambda rows: (x[rows].square(),), 5, 1)
    assert torch.equal(torch.autograd.grad(square.sum(), x)[0], 2 * x.detach())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_finite_looks_at_every_entry_of_a_row(bad):
    x, y = torch.zeros(3, 4), torch.zeros(3, 2, 2)
    y[1, 1, 0] = bad
    assert finite(x, None, y, x[:, 0]).tolist() == [True, False, True]
    (marked,) = nan_where_bad(finite(y), x)
    assert marked.isnan().any(dim=1).tolist() == [False, True, False]
    assert marked.isnan().all(dim=1).tolist() == [False, True, False]
