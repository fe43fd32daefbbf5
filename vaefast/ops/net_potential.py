"""``net_potential``: the potential energy of latents under an MLP decoder, and its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vaefast.ops._autograd import (
    Pulled,
    differentiable_once,
    reference_named,
    tensors_of,
    wants_grad,
    with_biases,
)
from vaefast.ops._cpp import kernel, layers_of, like_of, plain_rows, rows_at
from vaefast.ops._derivatives import potential_gradients
from vaefast.ops._inputs import check_precision, check_target
from vaefast.ops._register import lazy, register
from vaefast.reference.net_potential import net_potential as reference
from vaefast.runtime import backends
from vaefast.runtime.tiles import check_tile
from vaefast.types import Network

__all__ = ["net_potential"]


def net_potential(
    z: Tensor,
    x: Tensor,
    net: Network,
    *,
    likelihood: str,
    obs_std: float = 1.0,
    precision: str = "ieee",
    tile: int | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """The negative log-joint of latents and images, and its gradient in the latents.

        U(z) = −log p(x | net(z)) − log N(z; 0, I),  ∇U(z) = z − Jᵀ ∂log p/∂out

    Equivalent to::

        logp, upstream = log_likelihood(net_forward(z, net), x, likelihood=likelihood)
        U = 0.5 * z.square().sum(1) + 0.5 * d * math.log(2 * math.pi) - logp

    Differentiable once in z, x, weights and biases; any number of times with
    ``backend="reference"``. NaN or infinity in a row of z, or in its input, makes that row of
    both results NaN.

    Args:
        z: latents [N, d]. Row n belongs to x[n // C], with C = N / B.
        x: images [B, D] in z's dtype.
        net: the decoder, d to D, giving natural parameters (logits, or the Gaussian's mean).
        likelihood: one of ``vaefast.types.LIKELIHOODS``, as in :func:`log_likelihood`.
        obs_std: standard deviation of the Gaussian, in the scale of x.
        precision: ``"ieee"``, ``"tf32"`` or ``"bf16"``: the lowest that a backend may use inside
            matrix products; the reference always computes in z's dtype.
        tile: rows that one GPU program works on, 16, 32, 64 or 128; ``None`` chooses it from the
            batch. It pins the bits of a result on CUDA; the CPU has no tiles and ignores it.
        backend: ``"reference"``, ``"cpp"`` or ``"triton"``; ``None`` chooses.

    Returns:
        U [N] float64 in nats, all constants included, and ∇U [N, d].

    Raises:
        TypeError: not tensors, or dtypes that differ or are not floating.
        ValueError: shapes, devices or options that do not fit together.
        RuntimeError: the backend asked for by name cannot run here.

    Source: Kuzina et al. 2022 (mathematics.md §1.3).
    """
    check_target(z, x, net, likelihood, obs_std)
    options = likelihood, float(obs_std), check_precision(precision), check_tile(tile)
    chosen = backends.resolve("net_potential", backend, z)
    if reference_named(backend, z, x, *tensors_of(net)):
        return _run_reference(z, x, *net, *options)
    network = with_biases(net) if wants_grad(z, x, *tensors_of(net)) else net
    return _op(z, x, *network, *options, chosen)


def _run_reference(
    z, x, weights, biases, layers, packed, likelihood, obs_std, precision, *_
) -> tuple[Tensor, Tensor]:
    net = Network(weights, biases, layers)
    return reference(z, x, net, likelihood=likelihood, obs_std=obs_std, precision=precision)


def _run_cpp(
    z, x, weights, biases, layers, packed, likelihood, obs_std, *_
) -> tuple[Tensor, Tensor]:
    layers, _alive = layers_of(weights, biases, layers, packed)
    U, grad = z.new_empty(len(z), dtype=torch.float64), z.new_empty(z.shape)
    rows, images = plain_rows(z, x)
    kernel("net_potential", z.dtype)(
        U.data_ptr(),
        rows_at(grad),
        rows_at(rows),
        len(z),
        layers,
        like_of(images, len(z), likelihood, [images.new_tensor(obs_std)]),
        torch.get_num_threads(),
    )
    return U, grad


def _fake(z, x, *arguments) -> tuple[Tensor, Tensor]:
    return z.new_empty(z.shape[0], dtype=torch.float64), z.new_empty(z.shape)


_op = register(
    "net_potential",
    "(Tensor z, Tensor x, Tensor[] weights, Tensor?[] biases, str[] layers, Tensor? packed,"
    " str likelihood, float obs_std, str precision, int tile, str backend) -> (Tensor, Tensor)",
    fake=_fake,
    reference=_run_reference,
    cpp=_run_cpp,
    triton=lazy("vaefast.kernels.net_potential", "net_potential"),
)


def _pull(pulled: Pulled) -> list[Any]:
    if (by_slope := pulled.by_slope()) is not None:
        return [by_slope]
    z, x, weights, biases, layers, _, likelihood, obs_std, *_ = pulled.arguments
    net = Network(weights, biases, layers)
    return potential_gradients(z, x, net, likelihood, obs_std, *pulled.upstream)


differentiable_once("net_potential", _pull, returns_slope=True)
