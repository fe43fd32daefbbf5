"""The networks that the MLP ops are measured on, and what one writes for them in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vaefast.bench.cases import Posterior, network, posterior
from vaefast.bench.ops import _stacks as stacks
from vaefast.bench.ops._activate import activate, pull
from vaefast.bench.place import PRODUCTS, Place
from vaefast.bench.runner import Provider
from vaefast.types import Network

__all__ = [
    "TABLE",
    "Product",
    "Shape",
    "backward_products",
    "by_autograd",
    "by_hand",
    "ceiling",
    "decoder",
    "encoder",
    "flop",
    "forward",
    "forward_products",
    "product",
    "shapes",
    "slopes",
    "tape",
    "weight_bytes",
]

Product = tuple[Tensor, Tensor, Tensor]  # input, matrix, output


class Shape(NamedTuple):
    widths: tuple[int, ...]  # of a decoder; the encoder has them in reverse order
    activation: str  # of the hidden layers

    def __str__(self) -> str:
        return "-".join(map(str, self.widths)) + " " + self.activation

    @property
    def activations(self) -> str:
        return ",".join([self.activation] * (len(self.widths) - 2) + ["identity"])

    def reversed(self) -> Shape:
        return Shape(self.widths[::-1], self.activation)


TABLE = (
    Shape((32, 512, 512, 784), "tanh"),
    Shape((17, 100, 333, 300), "relu"),
    Shape((8, 64, 3072), "silu"),
)
TINY = Shape((8, 16, 16, 24), "tanh")  # of a dry run


def shapes(place: Place) -> tuple[Shape, ...]:
    """A CPU's table, of which a GPU has the first row."""
    return place.table(TABLE, TABLE[:1], (TINY,))


def decoder(shape: Shape, B: int, device: str) -> Posterior:
    """float32 with Bernoulli logits: B inputs, one latent for each."""
    return posterior(
        B,
        1,
        widths=shape.widths,
        activations=shape.activations,
        dtype=torch.float32,
        device=device,
    )


def encoder(shape: Shape, device: str) -> Network:
    """float32, from the last width to the first."""
    return network(shape.widths[::-1], shape.activations, dtype=torch.float32, device=device)


def flop(net: Network, rows: int) -> int:
    """Multiplications and additions of the products of one pass over the rows."""
    if not net.is_mlp:
        return stacks.flop(net, rows)
    return 2 * rows * sum(weight.numel() for weight in net.weights)


def weight_bytes(net: Network) -> int:
    return sum(weight.numel() * weight.element_size() for weight in net.weights)


def product(rows: int, weight: Tensor, *, back: bool = False) -> Product:
    """One product of a layer: rows times weightᵀ, or times weight in the backward pass."""
    matrix = weight if back else weight.T
    given = torch.rand(rows, matrix.shape[0], device=weight.device, dtype=weight.dtype)
    return given, matrix, weight.new_empty((rows, matrix.shape[1]))


def forward_products(net: Network, rows: int) -> list[Product]:
    return [product(rows, weight) for weight in net.weights]


def backward_products(net: Network, rows: int) -> list[Product]:
    return [product(rows, weight, back=True) for weight in net.weights[::-1]]


def ceiling(
    place: Place, products: Callable[[], list[Product]], repeat: int = 1
) -> dict[str, Provider]:
    """Matrix products and nothing else, a CPU's limit; a GPU's rate is measured once a run."""
    return {PRODUCTS: _alone(products(), repeat)} if place.on_cpu else {}


def _alone(products: list[Product], repeat: int) -> Callable[[], Tensor]:

    def run() -> Tensor:
        for _ in range(repeat):
            for given, matrix, out in products:
                torch.mm(given, matrix, out=out)
        return products[-1][2]

    return run


def forward(z: Tensor, net: Network | stacks.Stack) -> Tensor:
    """The network in plain torch, in its weights' dtype."""
    if isinstance(net, stacks.Stack):
        return stacks.forward(z, net)
    z = z.to(net.weights[0].dtype)
    for weight, bias, kind in zip(net.weights, net.biases, net.activations):
        z = activate(kind, F.linear(z, weight, bias))
    return z


def tape(z: Tensor, net: Network) -> tuple[Tensor, list[tuple[str, Tensor, Tensor]]]:
    """The output, and (activation, argument, value) of each hidden layer."""
    *hidden, last = zip(net.weights, net.biases, net.activations)
    z, layers = z.to(net.weights[0].dtype), []
    for weight, bias, kind in hidden:
        a = F.linear(z, weight, bias)
        z = activate(kind, a)
        layers.append((kind, a, z))
    return F.linear(z, last[0], last[1]), layers


def slopes(layers: list[tuple[str, Tensor, Tensor]]) -> list[Tensor]:
    """The derivatives of the hidden layers' activations."""
    return [pull(kind, torch.ones_like(h), a, h) for kind, a, h in layers]


def by_autograd(
    z: Tensor, x: Tensor, net: Network | stacks.Stack, energy: bool = True
) -> tuple[Tensor | None, Tensor]:
    """U less its constant where asked, and ∇U, as one writes them; a row of z per row of x."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        logits = forward(z, net).to(x.dtype)
        if not energy:
            total = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
            return None, torch.autograd.grad(total + 0.5 * z.square().sum(), z)[0]
        loss = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
        U = loss + 0.5 * z.square().sum(1)
        (grad,) = torch.autograd.grad(U.sum(), z)
    return U.detach(), grad


def by_hand(
    z: Tensor, x: Tensor, net: Network | stacks.Stack, energy: bool = True
) -> tuple[Tensor | None, Tensor]:
    """The same as :func:`by_autograd` with the backward pass written out."""
    if isinstance(net, stacks.Stack):
        return stacks.by_hand(z, x, net, energy)
    dtype = net.weights[0].dtype
    logits, layers = tape(z, net)
    logits = logits.to(x.dtype)
    grad = torch.sigmoid(logits).sub_(x).to(dtype) @ net.weights[-1]
    for weight, (kind, a, h) in zip(net.weights[-2:0:-1], layers[:0:-1]):
        grad = pull(kind, grad, a, h) @ weight
    first = pull(layers[0][0], grad, *layers[0][1:])
    if dtype == z.dtype:
        grad = torch.addmm(z, first, net.weights[0])
    else:
        grad = z + first @ net.weights[0]
    if not energy:
        return None, grad
    loss = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
    return loss + 0.5 * z.square().sum(1), grad
