"""The networks that the MLP ops are measured on, and what others do with them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vaefast.bench.cases import Posterior, network, posterior
from vaefast.types import MLP

__all__ = [
    "by_autograd",
    "by_hand",
    "compiled",
    "decoder",
    "encoder",
    "flop",
    "forward",
    "jax_forward",
    "jax_potential",
    "jitted",
    "matrix_products",
    "weight_bytes",
]

DECODER = (32, 512, 512, 784)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def decoder(B: int, C: int = 1) -> Posterior:
    """32-512-512-784 in tanh with Bernoulli logits, float32: B inputs, C latents for each."""
    return posterior(
        B, C, widths=DECODER, activations="tanh,tanh,identity", dtype=torch.float32, device=DEVICE
    )


def encoder() -> MLP:
    """784-512-512-32 in tanh, float32."""
    return network(DECODER[::-1], "tanh,tanh,identity", dtype=torch.float32, device=DEVICE)


def flop(mlp: MLP, rows: int) -> int:
    """Multiplications and additions of the matrix products of one pass over the rows."""
    return 2 * rows * sum(weight.numel() for weight in mlp.weights)


def weight_bytes(mlp: MLP) -> int:
    return sum(weight.numel() * weight.element_size() for weight in mlp.weights)


def matrix_products(mlp: MLP, rows: int, passes: int = 1) -> Callable[[], Tensor]:
    """The matrix products of ``passes`` passes and nothing else: the machine's limit."""
    widths = [mlp.in_features, *(weight.shape[0] for weight in mlp.weights)]
    inputs = [torch.rand(rows, width, device=DEVICE) for width in widths]
    outputs = [torch.empty_like(t) for t in inputs]

    def run() -> Tensor:
        for _ in range(passes):
            for layer, weight in enumerate(mlp.weights):
                torch.mm(inputs[layer], weight.T, out=outputs[layer + 1])
        return outputs[-1]

    return run


def forward(z: Tensor, mlp: MLP) -> Tensor:
    """The network in plain torch: tanh between the layers."""
    *hidden, last = zip(mlp.weights, mlp.biases)
    for weight, bias in hidden:
        z = torch.tanh(F.linear(z, weight, bias))
    return F.linear(z, *last)


def by_autograd(z: Tensor, x: Tensor, mlp: MLP) -> tuple[Tensor, Tensor]:
    """U less its constant and ∇U as one writes them in torch; one row of z per row of x."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        logits = forward(z, mlp)
        loss = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
        U = loss + 0.5 * z.square().sum(1)
        (grad,) = torch.autograd.grad(U.sum(), z)
    return U.detach(), grad


def by_hand(z: Tensor, x: Tensor, mlp: MLP) -> tuple[Tensor, Tensor]:
    """The same as :func:`by_autograd` with the backward pass written out, for torch.compile."""
    hidden, h = [], z
    for weight, bias in zip(mlp.weights[:-1], mlp.biases[:-1]):
        h = torch.tanh(F.linear(h, weight, bias))
        hidden.append(h)
    logits = F.linear(h, mlp.weights[-1], mlp.biases[-1])
    loss = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
    grad = (torch.sigmoid(logits) - x) @ mlp.weights[-1]
    for weight, h in zip(mlp.weights[-2::-1], hidden[::-1]):
        grad = (grad * (1 - h * h)) @ weight
    return loss + 0.5 * z.square().sum(1), grad + z


def compiled(function: Callable) -> Callable:
    return torch.compile(function, fullgraph=True)


def jitted(function: Callable, *tensors) -> dict[str, Callable[[], Tensor]]:
    """``{"JAX jit": ...}`` where JAX is installed, on the CPU; lists of tensors are allowed."""
    if DEVICE != "cpu" or not importlib.util.find_spec("jax"):
        return {}
    import jax

    arrays = jax.tree.map(lambda t: jax.numpy.asarray(t.numpy()), tensors)
    run = jax.jit(function)
    return {"JAX jit": lambda: torch.from_dlpack(run(*arrays).block_until_ready())}


def jax_forward(z, weights, biases):
    import jax.numpy as jnp

    for W, b in zip(weights[:-1], biases[:-1]):
        z = jnp.tanh(z @ W.T + b)
    return z @ weights[-1].T + biases[-1]


def jax_potential(z, x, weights, biases):
    """The sum of U over the rows, less its constant."""
    import jax
    import jax.numpy as jnp

    logits = jax_forward(z, weights, biases)
    return (jax.nn.softplus(logits) - x * logits).sum() + 0.5 * jnp.square(z).sum()
