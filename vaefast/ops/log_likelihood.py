"""``log_likelihood``: log p(x | out) per row and its gradient, in one pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from vaefast.ops._autograd import Pulled, differentiable_once, reference_named
from vaefast.ops._cpp import like_of
from vaefast.ops._derivatives import likelihood_gradients
from vaefast.ops._inputs import check_chains, check_kind, check_likelihood, check_matrix
from vaefast.ops._register import lazy, register, rows_of
from vaefast.reference.log_likelihood import log_likelihood as reference
from vaefast.runtime import backends

__all__ = ["log_likelihood"]


def log_likelihood(
    out: Tensor,
    x: Tensor,
    *,
    likelihood: str,
    obs_std: float = 1.0,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """The log-likelihood of each row's image, and its gradient in the decoder's output.

    With a = out and π = sigmoid(a), per pixel and summed over the row::

        bernoulli             x log π + (1 − x) log(1 − π)
        clamped_bernoulli     the same with π in [1e-5, 1 − 1e-5], gradient 0 where clamped
        continuous_bernoulli  x a − log((eᵃ − 1) / a)
        gaussian              −(x − a)² / (2 s²) − log s − ½ log 2π,  s = obs_std

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
        obs_std: standard deviation of the Gaussian, in the scale of x; unused by the others.
        backend: ``"reference"``, ``"cpp"`` or ``"triton"``; ``None`` chooses.

    Returns:
        log p(x | out) [N] float64 in nats, all constants included, and d log p / d out [N, D].

    Raises:
        TypeError: not tensors, or dtypes that differ or are not floating.
        ValueError: shapes or devices that differ, an unknown likelihood, ``obs_std`` not positive.
        RuntimeError: the backend asked for by name cannot run here.

    Source: Loaiza-Ganem & Cunningham 2019, "The continuous Bernoulli", eq. 5-6, written in logits;
    the clamped form as in Kuzina et al. 2022 (mathematics.md §1.3).
    """
    check_matrix(out, "out", "[N, D]")
    check_matrix(x, "x", "[B, D]", out.shape[1])
    check_kind(x, "x", out, "out")
    check_chains(out, x, "out")
    check_likelihood(likelihood, obs_std)
    chosen = backends.resolve("log_likelihood", backend, out)
    if reference_named(backend, out, x):
        return reference(out, x, likelihood=likelihood, obs_std=float(obs_std))
    return _op(out, x, likelihood, float(obs_std), chosen)


def _run_reference(out, x, likelihood, obs_std) -> tuple[Tensor, Tensor]:
    return reference(out, x, likelihood=likelihood, obs_std=obs_std)


def _on_rows(run: Callable) -> Callable:
    """A kernel for matrices with contiguous rows and at least one element, for any others."""

    def call(out, x, likelihood, obs_std) -> tuple[Tensor, Tensor]:
        if out.numel() == 0:
            return out.new_zeros(len(out), dtype=torch.float64), out.new_empty(out.shape)
        return run(rows_of(out), rows_of(x), likelihood, obs_std)

    return call


def _run_cpp(out, x, likelihood, obs_std) -> tuple[Tensor, Tensor]:
    (N, D), results = out.shape, _fake(out, x, likelihood, obs_std, "cpp")
    data = (out, x, *results)
    _kernel(out.dtype)(
        [t.data_ptr() for t in data],
        [t.stride(0) for t in (out, x, results[1])],
        N,
        D,
        *like_of(x, N, likelihood, [x.new_tensor(obs_std)])[1:],
        torch.get_num_threads(),
    )
    return results


@cache
def _kernel(dtype: torch.dtype) -> Callable[..., None]:
    from vaefast import _C

    return _C.log_likelihood_f32 if dtype == torch.float32 else _C.log_likelihood_f64


def _fake(out, x, likelihood, obs_std, backend) -> tuple[Tensor, Tensor]:
    return out.new_empty(out.shape[0], dtype=torch.float64), out.new_empty(out.shape)


_op = register(
    "log_likelihood",
    "(Tensor out, Tensor x, str likelihood, float obs_std, str backend) -> (Tensor, Tensor)",
    fake=_fake,
    reference=_run_reference,
    cpp=_on_rows(_run_cpp),
    triton=_on_rows(lazy("vaefast.kernels.log_likelihood", "log_likelihood")),
)


def _pull(pulled: Pulled) -> list[Tensor]:
    if (by_slope := pulled.by_slope()) is not None:
        return [by_slope]
    *arguments, _ = pulled.arguments
    return list(likelihood_gradients(*arguments, *pulled.upstream))


differentiable_once("log_likelihood", _pull, returns_slope=True)
