"""Spectrum of the pullback metric."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vaefast import checks
from vaefast.geometry.lanczos import BASIS_BYTES, ritz_pairs
from vaefast.geometry.metric import decompose, eigenvalues, factor
from vaefast.geometry.operators import gaussian, operator
from vaefast.geometry.points import METRICS, Points, check_map, evaluate, zeros_said
from vaefast.models import VAE
from vaefast.models.context import Context
from vaefast.models.prepare import Prepared, prepare
from vaefast.philox import check_seed
from vaefast.runtime import memory
from vaefast.runtime.grad_mode import without_grad
from vaefast.runtime.reasons import listed, marked
from vaefast.runtime.renamed import renamed

__all__ = ["Lanczos", "Spectrum", "check_metric", "pullback_spectrum", "spectrum"]

RESOLUTION = 1e-6  # of λ₁; the direction of a smaller eigenvalue is rounding error
METHODS = ("auto", "exact", "lanczos")
EXACT = 1024  # latents (twice as many with σ's) up to which the whole spectrum is taken by itself
KINDS = {
    "exact": "exact to round-off",
    "lanczos": "Ritz values: lower bounds of the largest eigenvalues, to round-off",
}


@dataclass(frozen=True)
class Spectrum:
    """Eigen-pairs of the pullback metric G at each input.

    Attributes:
        eigenvalues: [B, m] float64, descending: all that can be non-zero, m = d (2d with std and
            for Fisher's); by Lanczos the k that were asked for, each at most the true one.
        vectors: [B, k, *event] ([B, k, d] for the decoder) unit eigenvectors of the k largest in
            x's dtype, the entry of largest modulus positive; 0 where λ_k ≤ 1e-6 λ_1.
        residuals: [B, k] float64, how far from each of Lanczos's values an eigenvalue is at most;
            None of the exact ones.
        kind: what the eigenvalues are: ``"exact to round-off"``, or lower bounds.
    """

    eigenvalues: Tensor
    vectors: Tensor
    residuals: Tensor | None = None
    kind: str = KINDS["exact"]


@dataclass(frozen=True)
class Lanczos:
    """How Lanczos runs: see :func:`pullback_spectrum`."""

    iterations: int = 30
    tolerance: float = 1e-3
    seed: int = 0


@renamed(space="of")
@without_grad
def pullback_spectrum(
    vae: VAE,
    x: Tensor,
    *,
    of: str = "encoder",
    std: bool = False,
    whiten: bool = False,
    vectors: int = 1,
    method: str = "auto",
    iterations: int = 30,
    tolerance: float = 1e-3,
    seed: int = 0,
    index: Tensor | None = None,
    context: Context = None,
) -> Spectrum:
    """Eigenvalues and leading eigenvectors of the pullback metric G(x) = JᵀJ.

    ‖f(x+δ) − f(x)‖² = δᵀG(x)δ + o(‖δ‖²), so the leading eigenvector is the most damaging small
    perturbation. With ``std`` the encoder's noise scale moves too:

        encoder:         G = J_μᵀJ_μ + J_σᵀJ_σ          = E_ε[J_zᵀJ_z], z = μ(x) + σ(x)⊙ε
        reconstruction:  G = J_μᵀG_dec J_μ + J_σᵀ diag(G_dec) J_σ,  G_dec = J_gᵀJ_g
        fisher:          G = J_μᵀΣ⁻¹J_μ + 2 J_log σᵀJ_log σ,  KL(q(z|x) ‖ q(z|x+δ)) ≈ ½ δᵀGδ

    The exact spectrum is that of the m×m matrix A Aᵀ of a factor G = AᵀA; G itself is never formed.
    For large latents block Lanczos finds the largest eigenvalues from products with J and Jᵀ.

    Args:
        vae: the VAE, in evaluation mode.
        x: [B, *event] inputs, float.
        of: ``"encoder"`` (x ↦ μ(x)), ``"decoder"`` (z ↦ g(z) at z = μ(x)), ``"reconstruction"``
            (x ↦ g(μ(x))) or ``"fisher"`` (x ↦ q(z|x), the metric of KL attacks in nats).
        std: add the terms of J_σ; not for the decoder, whose metric is that of its mean g, nor for
            Fisher's, which holds them.
        whiten: the metric JᵀΣ⁻¹J instead; encoder without ``std`` only.
        vectors: number k of eigenvectors, 0 to m; for Lanczos at least 1.
        method: ``"exact"``: all m eigenvalues; ``"lanczos"``: the k largest, from below;
            ``"auto"``: exact up to m = 1024, else Lanczos. The result's ``kind`` says which.
        iterations: of Lanczos, at most; each takes max(k, 2) products with J and with Jᵀ. The
            reconstruction with ``std`` takes d products with J_g before them.
        tolerance: a row is done when the residuals of its k pairs are at most ``tolerance``·θ_1.
            The error of an eigenvalue is of second order in its residual.
        seed: of Lanczos's start, which depends on ``(seed, index)`` only.
        index: [B] int64, the global number of each input; default ``arange(B)``.
        context: conditions of each input, [B, ...] or a dict of such tensors.

    Returns:
        :class:`Spectrum`; NaN in the rows where x is not finite. One warning names the rows whose
        metric is 0, one those whose residuals are above ``tolerance``.

    Raises:
        MemoryError: the m×m matrix of one input exceeds the memory budget.
        ValueError: unknown option, or a combination that has no meaning.

    Source: Khan, Storkey, "Adversarial robustness of VAEs through the lens of local geometry",
    AISTATS 2023; the released code's d×d matrix J_μJ_μᵀ + J_σJ_σᵀ has another spectrum than G.
    Fisher's metric: Gloeckler et al. 2023; mathematics.md 3.4.
    """
    check_metric(of, std, whiten)
    checks.count(vectors, "vectors", 0)
    checks.option(method, "method", METHODS)
    checks.count(iterations, "iterations")
    if not 0.0 < checks.number(tolerance, "tolerance") < 1.0:
        raise ValueError(f"tolerance must lie in (0, 1), got {tolerance:g}")
    how = Lanczos(iterations, tolerance, check_seed(seed))
    prepared = prepare(vae, x, index, context=context, half="widen")
    found = spectrum(prepared, of, std=std, whiten=whiten, vectors=vectors, method=method, how=how)
    zeros_said(found.eigenvalues[:, 0], of)
    _unfinished_said(found, tolerance)
    return found


def spectrum(
    prepared: Prepared,
    of: str,
    *,
    std: bool = False,
    whiten: bool = False,
    vectors: int = 1,
    method: str = "auto",
    how: Lanczos = Lanczos(),
) -> Spectrum:
    """As :func:`pullback_spectrum`, for what was prepared."""
    maps = prepared.maps
    m = maps.latents * (2 if (std or of == "fisher") and maps.std is not None else 1)
    if vectors > m:
        raise ValueError(f"vectors must be at most {m}, got {vectors}")
    if method == "auto":
        method = "exact" if m <= EXACT or not vectors else "lanczos"
    own = {"whiten": whiten or of == "fisher", "std": std or of == "fisher"}
    if method == "lanczos":
        return _by_lanczos(prepared, of, vectors, how, **own)
    memory.require_fits(
        3 * 8 * m * m,
        f"the spectrum of a {m}×{m} matrix",
        'pass vectors=1 or more and method="lanczos" for the largest eigenvalues,',
    )
    pairs = partial(_exact, of=of, std=std, vectors=vectors, dtype=prepared.dtype)
    values, top = evaluate(prepared, of, pairs, **own)
    return Spectrum(values, _as_events(top, prepared, of))


def _exact(
    points: Points, *, of: str, std: bool, vectors: int, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """All eigenvalues [b, m], and the leading vectors [b, k, n]."""
    a = factor(points.maps, points.x, of, inv_std=points.inv_std, std=std)
    if not vectors:
        return eigenvalues(a.gram), points.x.new_zeros(len(a.gram), 0, 1, dtype=dtype)
    values, w = decompose(a.gram)
    return values, _directions(a.pull(w.mT[:, :vectors]), values[:, :vectors], dtype)


def _by_lanczos(
    prepared: Prepared, of: str, vectors: int, how: Lanczos, *, whiten: bool, std: bool
) -> Spectrum:
    checks.count(vectors, "vectors of Lanczos", 1)
    block, size = max(vectors, 2), prepared.maps.latents * (2 if std else 1)
    if of == "reconstruction":
        size += prepared.pixels - prepared.maps.latents

    def pairs(points: Points) -> tuple[Tensor, ...]:
        op = operator(points, of, std=std)
        start = gaussian(points, op.size, min(block, op.size), how.seed)
        found = ritz_pairs(op, start, vectors, iterations=how.iterations, tolerance=how.tolerance)
        w = found.vectors
        v = w if op.on_inputs else op.half(w.to(points.x.dtype)).double()
        return found.values, _directions(v, found.values, prepared.dtype), found.residuals

    extra = BASIS_BYTES * how.iterations * block * size
    values, top, residuals = evaluate(
        prepared, of, pairs, probes=block, whiten=whiten, std=std, extra=extra
    )
    return Spectrum(values, _as_events(top, prepared, of), residuals, KINDS["lanczos"])


def _directions(vectors: Tensor, values: Tensor, dtype: torch.dtype) -> Tensor:
    """Unit vectors [b, k, n] whose entry of largest modulus is positive; 0 for rounding errors."""
    length = torch.linalg.vector_norm(vectors, dim=2, keepdim=True)
    peak = vectors.gather(2, vectors.abs().argmax(2, keepdim=True))
    undetermined = values <= RESOLUTION * values[:, :1]
    unit = vectors * peak.sign() / length
    return unit.masked_fill(undetermined.unsqueeze(-1), 0.0).to(dtype)


def _as_events(top: Tensor, prepared: Prepared, of: str) -> Tensor:
    count = top.shape[1]
    event = [prepared.maps.latents] if of == "decoder" else prepared.x.shape[1:]
    return top.reshape(len(top), count, *event) if count else top.new_zeros(len(top), 0, *event)


def _unfinished_said(found: Spectrum, tolerance: float) -> None:
    """One line where Lanczos ended before its residuals were small."""
    if found.residuals is None:
        return
    largest = (found.residuals / found.eigenvalues[:, :1].clamp(min=1e-300)).amax(1)
    late = largest > tolerance
    if bool(late.any()):
        rows = marked(late)
        warnings.warn(
            f"Lanczos: residuals above {tolerance:g} of the largest value in {len(rows)} of "
            f"{len(late)} inputs ({listed(rows)}), up to {largest[late].max():.1e}; the values are "
            "still lower bounds; pass more iterations",
            stacklevel=5,
        )


def check_metric(of: str, std: bool, whiten: bool = False) -> None:
    """Of what a metric is asked, and that it has a meaning.

    Raises:
        ValueError: unknown ``of``, or a combination that has none.
    """
    check_map(of, whiten, METRICS)
    if std and of == "fisher":
        raise ValueError('of="fisher" holds the std\'s terms already: leave std out')
    if std and of == "decoder":
        raise ValueError(
            'std=True adds the Jacobian of the encoder\'s std: it needs of="encoder" or '
            '"reconstruction", got of="decoder"'
        )
    if std and whiten:
        raise ValueError("whiten=True divides the mean by its std: it needs std=False")
