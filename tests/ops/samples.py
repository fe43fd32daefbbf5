"""One list of samples per op, which drives every test that all ops pass: tests/ops/test_samples.py.

A new op is tested by all of them because it is listed here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from vaefast import ops
from vaefast.bench.cases import network, posterior

__all__ = ["SAMPLES", "Sample"]


class Sample(NamedTuple):
    """One call of an op.

    Args:
        op: its name.
        label: what is special about it.
        make: a dtype to fresh positional arguments and options.
        rows: place of the argument whose last row a test spoils, and the rows of the first result
            that this makes NaN; None where no row is ever NaN.
    """

    op: str
    label: str
    make: Callable[[torch.dtype], tuple[list[Any], dict[str, Any]]]
    rows: tuple[int, slice] | None = None

    def run(self, backend: str | None, dtype: torch.dtype = torch.float64, spoil: bool = False):
        """The results as a tuple; those of an op that writes are what it wrote."""
        arguments, options = self.make(dtype)
        if spoil:
            place, _ = self.rows
            arguments[place] = arguments[place].clone()
            arguments[place].view(len(arguments[place]), -1)[-1, 0] = torch.nan
        if self.op == "leapfrog_step":
            ops.leapfrog_step(*arguments, **options, backend=backend)
            return tuple(arguments[:2])
        result = getattr(ops, self.op)(*arguments, **options, backend=backend)
        return (result,) if isinstance(result, torch.Tensor) else tuple(result)


def _case(dtype, B=3, C=2):
    return posterior(B, C, dtype=dtype)


def _encoder(dtype):
    return network((10, 8, 6, 3), "tanh,silu,identity", dtype=dtype)


def _decode(dtype):
    z, x, net = _case(dtype, 3, 1)
    return [z, torch.ones_like(z), x, 1.5, net], {"samples": 5}


def _gram(dtype):
    x = _case(dtype).x
    return [x, _encoder(dtype)], {"inv_std": 1 + x[:, :3].abs()}


def _chain(dtype):
    z, x, net = _case(dtype)
    U, grad = ops.net_potential(z, x, net, likelihood="bernoulli", backend="reference")
    moves = {"step": 0.1, "leapfrog": 2, "steps": 3, "thin": 2, "jitter": 0.1}
    return [z, U, grad, x, net], {"likelihood": "bernoulli", **moves}


def _trajectory(likelihood, *params):
    def make(dtype):
        z, x, net = _case(dtype)
        like = {"likelihood": likelihood, "likelihood_params": params}
        return [z, z.flip(1), z.cos(), x, net], {**like, "step": 0.05, "leapfrog": 3}

    return make


def _potential(likelihood, *params):
    def make(dtype):
        return list(_case(dtype)), {"likelihood": likelihood, "likelihood_params": params}

    return make


def _pixels(likelihood, *params):
    def make(dtype):
        z, x, net = _case(dtype)
        out = ops.net_forward(z, net, backend="reference")
        return [out, x], {"likelihood": likelihood, "likelihood_params": params}

    return make


def _pgd(norm):
    def make(dtype):
        x = _case(dtype).x
        return [x, x.cos(), x.flip(1)], {"alpha": 0.1, "eps": 0.3, "norm": norm}

    return make


def _matrices(dtype):
    root = _case(torch.float64).z.view(2, 3, 3)
    return [root @ root.mT], {}


LAST, LAST_IMAGE = slice(-1, None), slice(-2, None)  # of rows; of the chains of the last image
SAMPLES = [
    Sample("net_forward", "", lambda dtype: [list(_case(dtype)[::2]), {}], (0, LAST)),
    Sample("net_jvp", "", lambda d: ([_case(d).x, _case(d).x[:2], _encoder(d)], {}), (0, LAST)),
    Sample(
        "net_jvp",
        "full",
        lambda d: ([_case(d).x, _case(d).x[:2], _encoder(d)], {"full": True}),
        (0, LAST),
    ),
    Sample("net_vjp", "", lambda d: ([_case(d).x, _case(d).z[:2], _encoder(d)], {}), (0, LAST)),
    Sample("net_jacobian_gram", "", _gram, (0, LAST)),
    Sample("net_potential", "bernoulli", _potential("bernoulli"), (1, LAST_IMAGE)),
    Sample("net_potential", "gaussian", _potential("gaussian", 0.4), (0, LAST)),
    Sample("net_trajectory", "bernoulli", _trajectory("bernoulli"), (3, LAST_IMAGE)),
    Sample("net_trajectory", "gaussian", _trajectory("gaussian", 0.4), (0, LAST)),
    Sample("net_chain", "", _chain),
    Sample("decode_distance", "", _decode),
    Sample("log_likelihood", "bernoulli", _pixels("bernoulli"), (0, LAST)),
    Sample("log_likelihood", "gaussian", _pixels("gaussian", 0.4), (1, LAST_IMAGE)),
    Sample("pgd_step", "l2", _pgd("l2"), (1, LAST)),
    Sample("pgd_step", "linf", _pgd("linf")),
    Sample(
        "leapfrog_step",
        "",
        lambda d: ([_case(d).z.clone(), _case(d).z.sin(), _case(d).z.cos(), 0.1], {}),
        (2, LAST),
    ),
    Sample("eigenvalue_bound", "", _matrices, (0, LAST)),
]
