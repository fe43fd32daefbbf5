"""``log_likelihood``: log p(x | out) per row and its gradient, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaefast.functional.rows import rows_of
from vaefast.ops._autograd import Pulled
from vaefast.ops._cpp import kernel, like_of
from vaefast.ops._derivatives import likelihood_gradients
from vaefast.ops._inputs import check_chains, check_kind, check_matrix
from vaefast.ops._likelihood import check_likelihood
from vaefast.ops._register import lazy, register
from vaefast.reference.log_likelihood import log_likelihood as reference
from vaefast.runtime import threads

__all__ = ["log_likelihood"]


class Call(NamedTuple):
    out: Tensor
    x: Tensor
    likelihood: str
    likelihood_params: list[Tensor]
    backend: str | None


def log_likelihood(
    out: Tensor,
    x: Tensor,
    *,
    likelihood: str,
    likelihood_params: Sequence[float | Tensor] = (),
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """The log-likelihood of each row's image, and its gradient in the decoder's output.

    With a = out and π = sigmoid(a), per pixel and summed over the row::

        bernoulli             x log π + (1 − x) log(1 − π)
        clamped_bernoulli     the same with π in [1e-5, 1 − 1e-5], gradient 0 where clamped
        continuous_bernoulli  x a − log((eᵃ − 1) / a)
        gaussian              −(x − a)² / (2 s²) − log s − ½ log 2π,  s = std

    Equivalent to, for ``"bernoulli"`` and one chain per input::

        -F.binary_cross_entropy_with_logits(out, x, reduction="none").sum(1), x - out.sigmoid()

    The pixels' terms are computed in the input dtype and summed in float64. Differentiable once
    in ``out`` and x; any number of times with ``backend="reference"``. NaN or infinity in a row
    of ``out``, or in its input, makes that row of both results NaN.

    Args:
        out: natural parameters [N, D]: logits, or the Gaussian's mean. Row n belongs to
            x[n // C], with C = N / B.
        x: images [B, D] in ``out``'s dtype; in [0, 1] but for the Gaussian.
        likelihood: one of ``vaefast.types.LIKELIHOODS``.
        likelihood_params: the Gaussian's [std], a float or tensor, in the scale of x: a scalar,
            [D], or [B, D]; default 1. The others take none.
        backend: as for every op, see :mod:`vaefast.ops`.

    Returns:
        log p(x | out) [N] float64 in nats, all constants included, and d log p / d out [N, D].

    Raises:
        TypeError: not tensors, or dtypes that differ or are not floating.
        ValueError: shapes or devices that differ, an unknown likelihood, parameters that
            it does not take or that are not positive.
        RuntimeError: the backend asked for by name cannot run here.

    Source: Loaiza-Ganem & Cunningham 2019, "The continuous Bernoulli", eq. 5-6, written in logits;
    the clamped form as in Kuzina et al. 2022 (mathematics.md §1.3).
    """
    check_matrix(out, "out", "[N, D]")
    check_matrix(x, "x", "[B, D]", out.shape[1])
    check_kind(x, "x", out, "out")
    check_chains(out, x, "out")
    parameters = check_likelihood(likelihood, likelihood_params, x)
    return _op(Call(out, x, likelihood, parameters, backend))


def _on_rows(run: Callable[[Call], Any]) -> Callable[[Call], Any]:
    """A kernel for matrices with contiguous rows and at least one element, for any others."""

    def on_any(call: Call) -> Any:
        out, x = call.out, call.x
        if out.numel() == 0:
            return out.new_zeros(len(out), dtype=torch.float64), out.new_empty(out.shape)
        return run(Call(rows_of(out), rows_of(x), *call[2:]))

    return on_any


def _cpp(call: Call) -> tuple[Tensor, Tensor]:
    out, x, results = call.out, call.x, _fake(call)
    _, chains, *like = like_of(x, out.shape[0], call.likelihood, call.likelihood_params)
    kernel("log_likelihood", out.dtype)(
        [t.data_ptr() for t in (out, x, *results)],
        [t.stride(0) for t in (out, x, results[1])],
        *out.shape,
        chains,
        *like,
        threads.count(),
    )
    return results


def _fake(call: Call) -> tuple[Tensor, Tensor]:
    out = call.out
    return out.new_empty(out.shape[0], dtype=torch.float64), out.new_empty(out.shape)


def _pull(pulled: Pulled) -> dict[str, Any]:
    if (by_slope := pulled.by_slope()) is not None:
        return {"out": by_slope}
    found = likelihood_gradients(*pulled.call[:-1], *pulled.upstream)
    return dict(zip(("out", "x"), found))


def _push(call: Call, tangent: Tensor, results: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """log p moves along its slope, which moves pixel by pixel."""
    moved = likelihood_gradients(*call[:-1], None, tangent)[0]
    return (results[1] * tangent).sum(1, dtype=torch.float64), moved


_op = register(
    Call,
    returns=tuple[Tensor, Tensor],
    fake=_fake,
    reference=reference,
    cpp=_on_rows(_cpp),
    triton=_on_rows(lazy("log_likelihood")),
    pull=_pull,
    derived=("out", "x"),
    second=True,
    push=_push,
)
