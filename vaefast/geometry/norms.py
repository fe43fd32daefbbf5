"""Frobenius and spectral norms of a VAE's Jacobians, exact or estimated.

The allowance ρ covers the rounding of products. It does not cover slopes that autograd computes
from a saturated unit's value in float32: its 1 − h² and h(1 − h) lose all their digits as |h| → 1.
Lowered networks take their slopes from the pre-activation and keep them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast import checks
from vaefast.geometry.estimators import power_iteration
from vaefast.geometry.metric import factor, largest_eigenvalue, largest_of_modules
from vaefast.geometry.operators import gaussian, operator
from vaefast.geometry.points import Points, check_map, evaluate, is_generic, zeros_said
from vaefast.geometry.trace import How, trace
from vaefast.models import VAE
from vaefast.models.context import Context
from vaefast.models.prepare import Prepared, prepare
from vaefast.ops._inputs import check_precision
from vaefast.philox import check_seed
from vaefast.runtime.grad_mode import without_grad
from vaefast.runtime.renamed import renamed

__all__ = ["frobenius", "frobenius_norm", "rounding", "spectral", "spectral_norm"]

EXACT = How("exact", 1, "gaussian", None, 0)
SIDES = {"upper": 1, "lower": -1, "estimate": 0}  # to which ρ rounds
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@renamed(space="of")
@without_grad
def frobenius_norm(
    vae: VAE,
    x: Tensor,
    *,
    of: str = "encoder",
    whiten: bool = False,
    method: str = "exact",
    probes: int = 16,
    distribution: str = "gaussian",
    upper_confidence: float | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    precision: str = "ieee",
    context: Context = None,
) -> Tensor:
    """‖J‖_F = √Σ J_ij² of a Jacobian at each input.

    Equivalent to: ``torch.linalg.matrix_norm(jacobian(vae, x).flatten(2))`` for the encoder.

    - ``"exact"``: through a d×d Gram matrix, d products per input.
    - ``"hutchinson"``: √(1/K Σ_k ‖Jᵀu_k‖²), u_k ~ N(0, I), on the side with d entries (the
      D-dimensional output side for ``of="reconstruction"``); its square is unbiased.
    - ``"hutch++"``: as above with a third of the probes spent on a sketch of the range.
    - ``"xtrace"``, ``"auto"``: as for :func:`pullback_trace`, which has the standard errors.

    With ``upper_confidence`` the Hutchinson result is the upper bound √(Σ_k ‖Jᵀu_k‖² / χ²_{K,α}),
    α = 1 − upper_confidence: at each input it is at least ‖J‖_F with that probability, for any J.
    It bounds the Jacobian at x, not over a ball around x.

    Args:
        vae: the VAE, in evaluation mode.
        x: [B, *event] inputs, float.
        of: ``"encoder"`` (x ↦ μ(x)), ``"decoder"`` (z ↦ g(z) at z = μ(x)) or
            ``"reconstruction"`` (x ↦ g(μ(x))).
        whiten: the norm of diag(1/σ(x)) J instead; encoder only.
        method: as above.
        probes: number K of random vectors; at least 3 for ``"hutch++"``, 2 for ``"xtrace"``.
        distribution: of Hutchinson's probes, as for :func:`pullback_trace`.
        upper_confidence: confidence of the upper bound, in [1 − P(χ²_K ≤ K), 1), which is
            [0.32, 1) for one probe and nears [0.5, 1) for many; ``"hutchinson"`` with Gaussian
            probes only.
        seed: seed of the probes.
        index: [B] int64, the global number of each input; default ``arange(B)``.
        precision: ``"ieee"``, ``"tf32"`` or ``"bf16"``: the lowest that a backend may use inside
            the Jacobian's products where the map is a lowered network. The reference and cpp always
            compute in x's dtype, and σ(x) and the decoder's z = μ(x) are never rounded. With
            another than ``"ieee"`` every method's result is an estimate of unbounded error.
        context: conditions of each input, [B, ...] or a dict of such tensors.

    Returns:
        [B] float64, pixel scale on the input side; NaN where x is not finite. A norm of 0 is said
        in one warning.

    Raises:
        ValueError: unknown option, ``whiten`` without the encoder, ``upper_confidence`` with a
            method that has no bound, outside the range where the bound holds, or with a reduced
            ``precision``.

    Source: mathematics.md 9; Hutchinson 1990; Meyer et al. 2021 (Hutch++); Epperly et al. 2024
    (XTrace).
    """
    check_map(of, whiten)
    how = How.checked(method, probes, distribution, upper_confidence, seed, precision)
    prepared = prepare(vae, x, index, context=context, precision=precision, half="widen")
    found = trace(prepared, of, how, whiten=whiten)
    square = found.value if found.upper is None else found.upper
    return zeros_said(square.sqrt(), of)


def frobenius(prepared: Prepared, of: str = "encoder", *, whiten: bool = False) -> Tensor:
    """The exact :func:`frobenius_norm`, for what was prepared."""
    return trace(prepared, of, EXACT, whiten=whiten).value.sqrt()


@renamed(space="of")
@without_grad
def spectral_norm(
    vae: VAE,
    x: Tensor,
    *,
    of: str = "encoder",
    whiten: bool = False,
    bound: str = "upper",
    iterations: int = 20,
    seed: int = 0,
    index: Tensor | None = None,
    precision: str = "ieee",
    context: Context = None,
) -> Tensor:
    """‖J‖₂, the largest singular value of a Jacobian at each input, rounded to a stated side.

    Equivalent to: ``torch.linalg.matrix_norm(jacobian(vae, x).flatten(2), ord=2)`` for the encoder.

    - ``"upper"``: √λ_max of the exact d×d Gram matrix, eigenvalues in float64, times 1 + ρ. On
      CUDA with d ≤ 128 an upper bound of λ_max by repeated squaring, up to 3e-6 above it.
    - ``"lower"``: power iteration on JJᵀ by products, never above ‖J‖₂, times 1 − ρ.
    - ``"estimate"``: what ``"upper"`` computes without the factor 1 + ρ. It promises no side,
      and is the only one that takes a reduced ``precision``.

    ρ allows for the rounding of the products: 1e-12 in float64, 1e-5 in float32, 2e-2 in float16,
    1e-1 in bfloat16. It is no proof: sums that cancel among large weights can exceed it in
    float32, and so can saturated tanh or sigmoid units where the model is not lowered and its
    slopes are autograd's. Pass a float64 model and input there. The lower bound serves attacks;
    nothing may be certified with it.

    Args:
        vae: the VAE, in evaluation mode.
        x: [B, *event] inputs, float.
        of: ``"encoder"``, ``"decoder"`` or ``"reconstruction"``, as in :func:`frobenius_norm`.
        whiten: the norm of diag(1/σ(x)) J instead; encoder only.
        bound: ``"upper"``, ``"lower"`` or ``"estimate"``.
        iterations: power steps of the lower bound.
        seed: seed of its start.
        index: [B] int64, the global number of each input; default ``arange(B)``.
        precision: ``"ieee"``, ``"tf32"`` or ``"bf16"``, as in :func:`frobenius_norm`. Another than
            ``"ieee"`` needs ``bound="estimate"``: no ρ covers slopes taken at rounded
            pre-activations.
        context: conditions of each input, [B, ...] or a dict of such tensors.

    Returns:
        [B] float64; NaN where x is not finite. A norm of 0 is said in one warning.

    Raises:
        ValueError: unknown option, ``whiten`` without the encoder, a bound in a reduced
            ``precision``.

    Source: mathematics.md 9.
    """
    check_map(of, whiten)
    checks.option(bound, "bound", tuple(SIDES))
    checks.count(iterations, "iterations")
    seed = check_seed(seed)
    check_precision(precision)
    if bound != "estimate":
        _need_ieee(precision, f'bound="{bound}"', 'pass bound="estimate"')
    prepared = prepare(vae, x, index, context=context, precision=precision, half="widen")
    if bound != "lower":
        return zeros_said(spectral(prepared, of, whiten=whiten, bound=bound), of)

    def norm(points: Points) -> tuple[Tensor, ...]:
        op = operator(points, of)
        return (power_iteration(op, gaussian(points, op.size, 1, seed), iterations),)

    (value,) = evaluate(prepared, of, norm, probes=1, whiten=whiten)
    return zeros_said(value * (1.0 - rounding(prepared)), of)


def spectral(
    prepared: Prepared, of: str = "encoder", *, whiten: bool = False, bound: str = "upper"
) -> Tensor:
    """:func:`spectral_norm` by eigenvalues, for what was prepared: "upper" or "estimate"."""

    largest = largest_of_modules if is_generic(prepared.maps, of) else largest_eigenvalue

    def norm(points: Points) -> tuple[Tensor, ...]:
        gram = factor(points.maps, points.x, of, inv_std=points.inv_std).gram
        return (largest(gram).sqrt(),)

    (value,) = evaluate(prepared, of, norm, whiten=whiten)
    return value * (1.0 + SIDES[bound] * rounding(prepared))


def _need_ieee(precision: str, what: str, instead: str) -> None:
    if precision != "ieee":
        raise ValueError(f'{what} needs precision="ieee", got "{precision}"; {instead}')


def rounding(prepared: Prepared) -> float:
    """The relative error that products in the coarsest dtype involved stay within."""
    dtypes = {prepared.dtype, *[p.dtype for p in checks.parameters(prepared.vae)]}
    return max(ROUNDING.get(dtype, 0.0) for dtype in dtypes)
