"""Robustness scores made of the pullback metric's spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vaefast import checks
from vaefast.geometry.metric import eigenvalues, factor
from vaefast.geometry.points import Points, evaluate, zeros_said
from vaefast.geometry.spectrum import check_metric, spectrum
from vaefast.models import VAE
from vaefast.models.context import Context
from vaefast.models.prepare import Prepared, prepare
from vaefast.runtime.grad_mode import without_grad
from vaefast.runtime.renamed import renamed

__all__ = ["Scores", "robustness_scores"]

VARIANTS = (None, "khan2023")


@dataclass(frozen=True)
class Scores:
    """Robustness scores of the pullback metric at each input; smaller is more robust.

    Attributes:
        spectral_radius: [B] float64, λ_1; with ``variant="khan2023"`` σ_1 = √λ_1.
        entropy_max: [B] float64, −Σ λ̃ log λ̃ with λ̃_i = λ_i/λ_1, nats; with the variant
            λ̃_i = σ_i/σ_1.
        entropy_density: [B] float64, the same with λ̃_i = λ_i/Σλ (von Neumann entropy), nats; with
            the variant λ̃_i = σ_i/Σσ.
        variant: of the scores: None (eigenvalues) or ``"khan2023"`` (singular values).
    """

    spectral_radius: Tensor
    entropy_max: Tensor
    entropy_density: Tensor
    variant: str | None = None


@renamed(space="of")
@without_grad
def robustness_scores(
    vae: VAE,
    x: Tensor,
    *,
    of: str = "encoder",
    std: bool = False,
    variant: str | None = None,
    index: Tensor | None = None,
    context: Context = None,
) -> Scores:
    """Spectral radius and entropies of the pullback metric's spectrum.

        ρ = λ_1,  S = −Σ_i λ̃_i log λ̃_i  with λ̃_i = λ_i/λ_1 and with λ̃_i = λ_i/Σλ  (0 log 0 = 0)

    Args:
        vae, x, of, std, index, context: as for :func:`pullback_spectrum`; the spectrum is exact.
        variant: None, or ``"khan2023"``: singular values σ_i = √λ_i in place of eigenvalues, as the
            published path by a singular value decomposition has it: ρ = σ_1 and the entropy of
            σ_i/σ_1 (its log has 1e-10 added, ours is exact). They come from J itself in float64,
            since a fused Gram matrix in float32 knows small ones to 3e-4 of σ_1 only.

    Returns:
        :class:`Scores`; all 0 where the Jacobian is 0, which one warning says, NaN where x is not
        finite.

    Raises:
        MemoryError: the matrix of one input exceeds the memory budget.
        ValueError: unknown option, or a combination that has no meaning.

    Source: Khan, Storkey 2023, mathematics.md 3.3. Their released code divides by the largest, on
    one path eigenvalues and on another singular values; a density matrix divides by the trace.
    Which one the paper's text means could not be checked, so all are here.
    """
    check_metric(of, std)
    checks.option(variant, "variant", VARIANTS)
    prepared = prepare(vae, x, index, context=context, half="widen")
    if variant is None:
        values = spectrum(prepared, of, std=std, vectors=0).eigenvalues
    else:
        values = _singular_values(prepared, of, std)
    radius = zeros_said(values[:, 0], of)
    return Scores(radius, _entropy(values, radius), _entropy(values, values.sum(1)), variant)


def _singular_values(prepared: Prepared, of: str, std: bool) -> Tensor:
    """[B, m] float64, descending."""

    def values(points: Points) -> tuple[Tensor, ...]:
        a = factor(points.maps, points.x, of, inv_std=points.inv_std, std=std, by_rows=True)
        return (eigenvalues(a.gram).sqrt(),)

    fisher = of == "fisher"
    return evaluate(prepared, of, values, whiten=fisher, std=std or fisher)[0]


def _entropy(values: Tensor, scale: Tensor) -> Tensor:
    share = values / scale.masked_fill(scale == 0, 1.0).unsqueeze(1)
    return torch.special.entr(share).sum(1)
