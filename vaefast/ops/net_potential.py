"""``net_potential``: the potential energy of latents under a decoder network, and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaefast.ops._autograd import Pulled
from vaefast.ops._cpp import kernel, layers_of, like_of, plain_rows, rows_at
from vaefast.ops._derivatives import potential_gradients
from vaefast.ops._inputs import check_precision, check_target
from vaefast.ops._likelihood import check_likelihood
from vaefast.ops._register import lazy, register
from vaefast.reference.net_potential import net_potential as reference
from vaefast.runtime import threads
from vaefast.runtime.tiles import check_tile
from vaefast.types import Network

__all__ = ["net_potential"]


class Call(NamedTuple):
    z: Tensor
    x: Tensor
    net: Network
    likelihood: str
    likelihood_params: list[Tensor]
    precision: str
    tile: int
    backend: str | None


def net_potential(
    z: Tensor,
    x: Tensor,
    net: Network,
    *,
    likelihood: str,
    likelihood_params: Sequence[float | Tensor] = (),
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
        likelihood_params: the Gaussian's [std], a float or tensor, in the scale of x: a scalar,
            [D], or [B, D]; default 1. The others take none.
        precision, tile, backend: as for every op, see :mod:`vaefast.ops`.

    Returns:
        U [N] float64 in nats, all constants included, and ∇U [N, d].

    Raises:
        TypeError: not tensors, or dtypes that differ or are not floating.
        ValueError: shapes, devices or options that do not fit together.
        RuntimeError: the backend asked for by name cannot run here.

    Source: Kuzina et al. 2022 (mathematics.md §1.3).
    """
    check_target(z, x, net, likelihood)
    parameters = check_likelihood(likelihood, likelihood_params, x)
    how = check_precision(precision), check_tile(tile)
    return _op(Call(z, x, net, likelihood, parameters, *how, backend))


def _cpp(call: Call) -> tuple[Tensor, Tensor]:
    layers, _alive = layers_of(*call.net)
    (U, grad), N = _fake(call), call.z.shape[0]
    rows, images = plain_rows(call.z, call.x)
    kernel("net_potential", grad.dtype)(
        U.data_ptr(),
        rows_at(grad),
        rows_at(rows),
        N,
        layers,
        like_of(images, N, call.likelihood, call.likelihood_params),
        threads.count(),
    )
    return U, grad


def _fake(call: Call) -> tuple[Tensor, Tensor]:
    z = call.z
    return z.new_empty(z.shape[0], dtype=torch.float64), z.new_empty(z.shape)


def _pull(pulled: Pulled) -> dict[str, Any]:
    if (by_slope := pulled.by_slope()) is not None:
        return {"z": by_slope}
    z, x, net, likelihood, parameters, *_ = pulled.call
    names = "z", "x", "weights", "biases"
    found = potential_gradients(z, x, net, likelihood, parameters, *pulled.upstream)
    return dict(zip(names, found))


def _push(call: Call, tangent: Tensor, results: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """U moves along its gradient, and the gradient by the Hessian, which is symmetric."""
    z, x, net, likelihood, parameters, *_ = call
    moved = potential_gradients(z, x, net, likelihood, parameters, None, tangent)[0]
    return (results[1] * tangent).sum(1, dtype=torch.float64), moved


_op = register(
    Call,
    returns=tuple[Tensor, Tensor],
    fake=_fake,
    reference=reference,
    cpp=_cpp,
    triton=lazy("net_potential"),
    pull=_pull,
    derived=("z", "x", "net"),
    second=True,
    push=_push,
)
