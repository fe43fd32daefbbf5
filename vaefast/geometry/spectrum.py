"""Spectrum of the pullback metric, and the robustness scores made of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vaefast import checks
from vaefast.geometry.metric import decompose, factor
from vaefast.geometry.points import Points, check_map, evaluate, zeros_said
from vaefast.models import VAE
from vaefast.models.context import Context
from vaefast.models.prepare import Prepared, prepare
from vaefast.runtime.grad_mode import without_grad

__all__ = ["Scores", "Spectrum", "pullback_spectrum", "robustness_scores", "spectrum"]

RESOLUTION = 1e-6  # of λ₁; the direction of a smaller eigenvalue is rounding error


@dataclass(frozen=True)
class Spectrum:
    """Eigen-pairs of the pullback metric G at each input.

    Attributes:
        eigenvalues: [B, m] float64, descending: all that can be non-zero, m = d (2d with std).
        vectors: [B, k, *event] ([B, k, d] for the decoder) unit eigenvectors of the k largest in
            x's dtype, the entry of largest modulus positive; 0 where λ_k ≤ 1e-6 λ_1.
    """

    eigenvalues: Tensor
    vectors: Tensor


@dataclass(frozen=True)
class Scores:
    """Robustness scores of the pullback metric at each input; smaller is more robust.

    Attributes:
        spectral_radius: [B] float64, λ_1.
        entropy_max: [B] float64, −Σ λ̃ log λ̃ with λ̃_i = λ_i/λ_1 (the published code), nats.
        entropy_density: [B] float64, the same with λ̃_i = λ_i/Σλ (von Neumann entropy), nats.
    """

    spectral_radius: Tensor
    entropy_max: Tensor
    entropy_density: Tensor


@without_grad
def pullback_spectrum(
    vae: VAE,
    x: Tensor,
    *,
    of: str = "encoder",
    std: bool = False,
    whiten: bool = False,
    vectors: int = 1,
    index: Tensor | None = None,
    context: Context = None,
) -> Spectrum:
    """Eigenvalues and leading eigenvectors of the pullback metric G(x) = JᵀJ.

    ‖f(x+δ) − f(x)‖² = δᵀG(x)δ + o(‖δ‖²), so the leading eigenvector is the most damaging small
    perturbation. With ``std`` the encoder's noise scale moves too:

        encoder:         G = J_μᵀJ_μ + J_σᵀJ_σ          = E_ε[J_zᵀJ_z], z = μ(x) + σ(x)⊙ε
        reconstruction:  G = J_μᵀG_dec J_μ + J_σᵀ diag(G_dec) J_σ,  G_dec = J_gᵀJ_g

    Computed from the m×m problem A Aᵀ of a factor G = AᵀA; G itself is never formed.

    Args:
        vae: the VAE, in evaluation mode.
        x: [B, *event] inputs, float.
        of: ``"encoder"`` (x ↦ μ(x)), ``"decoder"`` (z ↦ g(z) at z = μ(x)) or
            ``"reconstruction"`` (x ↦ g(μ(x))).
        std: add the terms of J_σ; not for the decoder, whose variance is fixed.
        whiten: the metric JᵀΣ⁻¹J instead; encoder without ``std`` only.
        vectors: number k of eigenvectors, 0 to m.
        index: [B] int64, the global number of each input; default ``arange(B)``.
        context: conditions of each input, [B, ...] or a dict of such tensors.

    Returns:
        :class:`Spectrum`; NaN in the rows where x is not finite. One warning names the rows whose
        metric is 0.

    Raises:
        ValueError: unknown option, or a combination that has no meaning.

    Source: Khan, Storkey, "Adversarial robustness of VAEs through the lens of local geometry",
    AISTATS 2023; the released code's d×d matrix J_μJ_μᵀ + J_σJ_σᵀ has another spectrum than G.
    """
    check_map(of, whiten)
    _check_std(of, std, whiten)
    checks.count(vectors, "vectors", 0)
    prepared = prepare(vae, x, index, context=context, half="widen")
    found = spectrum(prepared, of, std=std, whiten=whiten, vectors=vectors)
    zeros_said(found.eigenvalues[:, 0], of)
    return found


def spectrum(
    prepared: Prepared, of: str, *, std: bool = False, whiten: bool = False, vectors: int = 1
) -> Spectrum:
    """As :func:`pullback_spectrum`, for what was prepared."""

    def pairs(points: Points) -> tuple[Tensor, ...]:
        a = factor(points.maps, points.x, of, inv_std=points.inv_std, std=std)
        values, w = decompose(a.gram)
        if vectors > values.shape[1]:
            raise ValueError(f"vectors must be at most {values.shape[1]}, got {vectors}")
        top = _oriented(a.pull(w.mT[:, :vectors]))
        undetermined = values[:, :vectors] <= RESOLUTION * values[:, :1]
        return values, top.masked_fill(undetermined.unsqueeze(-1), 0.0).to(prepared.dtype)

    values, top = evaluate(prepared, of, pairs, whiten=whiten, std=std)
    event = top.shape[2:] if of == "decoder" else prepared.x.shape[1:]
    return Spectrum(values, top.reshape(len(values), vectors, *event))


@without_grad
def robustness_scores(
    vae: VAE,
    x: Tensor,
    *,
    of: str = "encoder",
    std: bool = False,
    index: Tensor | None = None,
    context: Context = None,
) -> Scores:
    """Spectral radius and entropies of the pullback metric's spectrum.

        ρ = λ_1,  S = −Σ_i λ̃_i log λ̃_i  with λ̃_i = λ_i/λ_1 and with λ̃_i = λ_i/Σλ  (0 log 0 = 0)

    Args:
        vae, x, of, std, index, context: as for :func:`pullback_spectrum`.

    Returns:
        :class:`Scores`; all 0 where the Jacobian is 0, which one warning says, NaN where x is not
        finite.

    Source: Khan, Storkey 2023 and its released code, which divides by λ_1; a density matrix
    divides by the trace. Which one the paper's text means could not be checked, so both.
    """
    check_map(of)
    _check_std(of, std, whiten=False)
    prepared = prepare(vae, x, index, context=context, half="widen")
    values = spectrum(prepared, of, std=std, vectors=0).eigenvalues
    radius = zeros_said(values[:, 0], of)
    return Scores(radius, _entropy(values, radius), _entropy(values, values.sum(1)))


def _entropy(values: Tensor, scale: Tensor) -> Tensor:
    share = values / scale.masked_fill(scale == 0, 1.0).unsqueeze(1)
    return torch.special.entr(share).sum(1)


def _oriented(vectors: Tensor) -> Tensor:
    """Unit vectors [b, k, n] whose entry of largest modulus is positive."""
    length = torch.linalg.vector_norm(vectors, dim=2, keepdim=True)
    peak = vectors.gather(2, vectors.abs().argmax(2, keepdim=True))
    return vectors * peak.sign() / length


def _check_std(of: str, std: bool, whiten: bool) -> None:
    if std and of == "decoder":
        raise ValueError(
            'std=True adds the Jacobian of the encoder\'s std: it needs of="encoder" or '
            '"reconstruction", got of="decoder"'
        )
    if std and whiten:
        raise ValueError("whiten=True divides the mean by its std: it needs std=False")
