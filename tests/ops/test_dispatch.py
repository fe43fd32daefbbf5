"""Torch's dispatcher sees every op: modes, negated views, counted writes."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vaefast import ops
from vaefast.types import Network


class Seen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def network():
    return Network.mlp([torch.tensor([[1.0, 2.0]])], [None], "tanh")


def test_a_mode_sees_the_op():
    x = torch.ones(1, 2)
    plain = ops.net_forward(x, network())
    with Seen() as seen:
        assert torch.equal(ops.net_forward(x, network()), plain)
    assert "vaefast.net_forward.default" in seen.names


def test_a_negated_view_is_what_it_stands_for():
    x = torch.tensor([[0.5, -0.25]])
    assert torch.equal(
        ops.net_forward(torch._neg_view(x), network()), -ops.net_forward(x, network())
    )


def test_a_write_is_counted():
    x, out = torch.rand(1, 3), torch.empty(1, 3)
    before = out._version
    ops.pgd_step(x, x, x, alpha=0.1, eps=0.1, out=out)
    assert out._version > before
