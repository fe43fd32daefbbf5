"""The same networks in JAX, where it is installed and has the device."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from vaefast.bench.ops import _jax_stacks as jax_stacks
from vaefast.bench.ops._stacks import Stack
from vaefast.types import Network

__all__ = ["arrays", "forward", "found", "gradient", "gradient_and_energy", "installed", "jitted"]
__all__ += ["hand_gradient", "missing", "network", "platform", "potential"]


class Static(str):
    """An argument that is a constant of the compiled function."""


def found(*packages: str) -> bool:
    return all(importlib.util.find_spec(name) for name in ("jax", *packages))


def installed(*packages: str, gpu: bool = False) -> bool:
    return found(*packages) and platform()[0] == ("gpu" if gpu else "cpu")


@cache
def platform() -> tuple[str, str]:
    """What JAX runs on by default, "gpu" or "cpu", or "" and why there is none."""
    if not found():
        return "", "it is not installed"
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch needs room as well
    try:
        import jax

        return jax.default_backend(), ""
    except Exception as error:  # whatever a plugin of it raises
        return "", f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def missing(gpu: bool = False) -> str:
    """Why no peer runs in JAX, or ""."""
    kind, reason = platform()
    if reason or installed(gpu=gpu):
        return reason
    return f"it has no {'GPU' if gpu else 'CPU'} here, only {kind}"


def network(net: Network | Stack) -> tuple[list[Tensor], list[Tensor], Static]:
    """A network as the arguments that the functions below take, weights [in, out].

    XLA's product of one row with a transposed [out, in] is seven times as slow.
    """
    if isinstance(net, Stack):
        return (
            jax_stacks.weights(net),
            [b for b in net.biases if b is not None],
            Static(jax_stacks.text(net)),
        )
    weights = [weight.T.contiguous() for weight in net.weights]
    return weights, [b for b in net.biases if b is not None], Static(",".join(net.activations))


def arrays(tensors: Any) -> Any:
    """JAX's arrays of a tree of tensors."""
    import jax

    def array(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if value.is_cuda or value.dtype == torch.bfloat16:  # which numpy does not know
            return jax.dlpack.from_dlpack(value.contiguous())
        return jax.numpy.asarray(value.numpy())

    return jax.tree.map(array, tensors)


def jitted(function: Callable, *arguments: Any, name: str = "JAX jit") -> dict[str, Callable]:
    """``{name: call}``, or nothing where JAX is not; weights are arguments, never constants.

    On a GPU the call does not wait for the result; the clock does.
    """
    gpu = any(isinstance(value, Tensor) and value.is_cuda for value in arguments)
    if not installed(gpu=gpu):
        return {}
    import jax

    static = [i for i, given in enumerate(arguments) if isinstance(given, Static)]
    given = arrays(arguments)
    run = jax.jit(function, static_argnums=static)
    return {name: lambda: run(*given) if gpu else jax.block_until_ready(run(*given))}


def forward(z, weights, biases, activations: str):
    if jax_stacks.SEPARATOR in activations:
        return jax_stacks.forward(z, weights, biases, activations)
    import jax

    functions = {"tanh": jax.numpy.tanh, "relu": jax.nn.relu, "silu": jax.nn.silu}
    functions |= {"identity": lambda a: a, "sigmoid": jax.nn.sigmoid}
    z = z.astype(weights[0].dtype)
    for W, b, kind in zip(weights, biases, activations.split(",")):
        z = functions[kind](z @ W + b)
    return z


def potential(z, x, *network):
    """U less its constant, one for every row of z."""
    import jax
    import jax.numpy as jnp

    logits = forward(z, *network).astype(x.dtype)
    loss = (jax.nn.softplus(logits) - x * logits).sum(-1)
    return loss + 0.5 * jnp.square(z).sum(-1)


def gradient(z, x, *network):
    """∇U, from the sum over the rows."""
    import jax

    return jax.grad(lambda z: potential(z, x, *network).sum())(z)


def gradient_and_energy(z, x, *network):
    """∇U and U in one pass."""
    import jax

    def total(z):
        U = potential(z, x, *network)
        return U.sum(), U

    return jax.grad(total, has_aux=True)(z)


def hand_gradient(z, x, weights, biases, activations: str, transposed):
    """∇U with the backward pass written out and both layouts of the weights at hand."""
    import jax
    import jax.numpy as jnp

    slopes, h = [], z.astype(weights[0].dtype)
    for W, b, kind in zip(weights[:-1], biases[:-1], activations.split(",")):
        a = h @ W + b
        if kind == "tanh":
            h = jnp.tanh(a)
            slope = 1 - h * h
        elif kind == "relu":
            h, slope = jax.nn.relu(a), jnp.where(a > 0, 1.0, 0.0)
        else:
            s = jax.nn.sigmoid(a)
            h, slope = a * s, s * (1 + a * (1 - s))
        slopes.append(slope)
    logits = (h @ weights[-1] + biases[-1]).astype(x.dtype)
    g = (jax.nn.sigmoid(logits) - x).astype(h.dtype) @ transposed[-1]
    for W, slope in zip(transposed[-2::-1], slopes[::-1]):
        g = (g * slope) @ W
    return g.astype(z.dtype) + z
