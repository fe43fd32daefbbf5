"""``damage_curve``: how far a model's reconstruction goes along the directions of its metric."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vaefast import checks
from vaefast.attacks.displacement import Displacement
from vaefast.attacks.geometric import ATTACKED
from vaefast.geometry.spectrum import check_metric, spectrum
from vaefast.models.context import Context
from vaefast.models.prepare import Prepared, prepare
from vaefast.models.vae import VAE
from vaefast.runtime.grad_mode import without_grad
from vaefast.runtime.renamed import renamed

__all__ = ["DamageCurve", "damage_curve"]

STEPS = ("eigenvalue", "singular_value", "unit")
FROM = ("input", "reconstruction")


@dataclass(frozen=True)
class DamageCurve:
    """How much a step along each direction changes, at each input.

    Attributes:
        scales: [S], s.
        lengths: [B, k] float64, what s is multiplied with: λ_k, √λ_k or 1; the step's length is
            s times that, in the scale of x.
        damage: [B, k, S] float64, the mean over all entries of the squared difference, pixel
            scale; NaN where x is not finite.
    """

    scales: Tensor
    lengths: Tensor
    damage: Tensor


@renamed(space="of")
@without_grad
def damage_curve(
    vae: VAE,
    x: Tensor,
    *,
    of: str = "encoder",
    std: bool = False,
    directions: int = 5,
    scales: Tensor | None = None,
    step: str = "eigenvalue",
    measured_from: str = "input",
    both_signs: bool = False,
    index: Tensor | None = None,
    context: Context = None,
) -> DamageCurve:
    """Mean squared error of the reconstruction along the eigenvectors of the pullback metric.

        x_{k,s} = x + s·λ_k(x)·v_k(x),   damage = MSE(g(μ(x_{k,s})), x)

    As published: the step is scaled by the eigenvalue, the latent is the mean, no entry is clipped.

    Args:
        vae: the VAE, in evaluation mode.
        x: [B, *event] inputs, float.
        of: ``"encoder"``, ``"fisher"`` or ``"reconstruction"``, the metric of the directions.
        std: its terms of J_σ too, see :func:`vaefast.geometry.pullback_spectrum`.
        directions: number k of eigenvectors.
        scales: [S] values of s; default 40 from 0.1 to 10, equally spaced in their logarithm.
        step: what scales it: ``"eigenvalue"`` λ_k (published), ``"singular_value"`` √λ_k, or
            ``"unit"``, for which s is the length of the step.
        measured_from: ``"input"`` x (published) or the clean ``"reconstruction"`` g(μ(x)), which
            leaves out what the model cannot reconstruct.
        both_signs: the larger damage of x ± the step; else +v_k, whose entry of largest modulus is
            positive.
        index: [B] int64, the global number of each input; default ``arange(B)``.
        context: conditions of each input, [B, ...] or a dict of such tensors.

    Returns:
        :class:`DamageCurve`.

    Raises:
        ValueError: unknown option, or scales that are not [S] finite numbers.

    Source: Khan, Storkey 2023, released code; mathematics.md 3.3.
    """
    checks.option(of, "of", ATTACKED)
    check_metric(of, std)
    checks.count(directions, "directions")
    checks.option(step, "step", STEPS)
    checks.option(measured_from, "measured_from", FROM)
    prepared = prepare(vae, x, index, context=context, half="widen")
    s = _scales(scales, prepared.x)
    own = spectrum(prepared, of, std=std, vectors=directions)
    values = own.eigenvalues[:, :directions]
    lengths = {"eigenvalue": values, "singular_value": values.sqrt()}.get(step)
    lengths = torch.ones_like(values) if lengths is None else lengths
    signs = (1.0, -1.0) if both_signs else (1.0,)

    def run(part: Prepared) -> tuple[Tensor, ...]:
        steps = own.vectors[part.gather].to(part.x.dtype)
        steps = steps * _per_entry(lengths[part.gather], steps)
        clean = part.maps.reconstruct(part.x) if measured_from == "reconstruction" else part.x
        found = [
            torch.stack([_error(part, sign * scale * steps, clean) for sign in signs]).amax(0)
            for scale in s.tolist()
        ]
        return (torch.stack(found, dim=2),)

    objective = Displacement(prepared, "reconstruction")
    cost = 2 * directions * objective.bytes_per_row()
    (damage,) = prepared.rows(run, cost, directions, generic=objective.generic)
    return DamageCurve(s, lengths, damage)


def _error(part: Prepared, steps: Tensor, clean: Tensor) -> Tensor:
    """[b, k] float64, of the reconstructions of x + steps [b, k, *event]."""
    points = (part.x[:, None] + steps).flatten(0, 1)
    off = part.maps.reconstruct(points).unflatten(0, steps.shape[:2]) - clean[:, None]
    return off.flatten(2).double().square().mean(2)


def _per_entry(values: Tensor, like: Tensor) -> Tensor:
    """[b, k] as [b, k, 1, ..., 1], to stand beside ``like``."""
    return values.to(like.dtype).reshape(*values.shape, *[1] * (like.ndim - 2))


def _scales(scales: Tensor | None, x: Tensor) -> Tensor:
    if scales is None:
        return torch.logspace(-1.0, 1.0, 40, dtype=torch.float64, device=x.device)
    checks.tensor(scales, "scales")
    if scales.ndim != 1 or not bool(scales.isfinite().all()):
        raise ValueError(f"scales must be [S] finite numbers, got shape {list(scales.shape)}")
    return scales.detach().to(x.device, torch.float64)
