"""``geometric``: steps along the directions that move the model most, to second order."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vaefast import checks
from vaefast.attacks.ball import Ball, narrowed, perturbation_norm, working
from vaefast.attacks.displacement import Displacement
from vaefast.attacks.engine import maximise
from vaefast.attacks.geometric_start import along
from vaefast.attacks.options import box_of_model, make_search, prepare_images, warn_of_radius
from vaefast.attacks.presets import Preset
from vaefast.attacks.result import NO_OBJECTIVE, NO_X, AttackResult, warn_of
from vaefast.attacks.search import Given, Search
from vaefast.functional.rows import finite
from vaefast.geometry.spectrum import check_metric, spectrum
from vaefast.models.context import Context
from vaefast.models.prepare import Prepared
from vaefast.models.vae import VAE
from vaefast.runtime import batching
from vaefast.runtime.grad_mode import without_grad
from vaefast.runtime.reasons import reasons
from vaefast.runtime.renamed import renamed

__all__ = ["ATTACKED", "geometric"]

ATTACKED = ("encoder", "fisher", "reconstruction")
RULE = Preset(
    "geometric",
    {"norm": "l2", "steps": 1, "restarts": 1, "low": 0.0, "high": 1.0, "keep": "best"},
)


@renamed(space="of")
@without_grad
def geometric(
    vae: VAE,
    x: Tensor,
    *,
    eps: float | Tensor,
    of: str = "encoder",
    std: bool = False,
    directions: int = 1,
    refine: int = 0,
    norm: str = "l2",
    low: float | Tensor | None = None,
    high: float | Tensor | None = None,
    index: Tensor | None = None,
    context: Context = None,
) -> AttackResult:
    """Perturb each input along dominant eigenvectors of its pullback metric.

        x' = clip(x ± eps·v_k, low, high),  v_k the k-th eigenvector of G(x) = JᵀJ

    ‖f(x+δ) − f(x)‖² = δᵀGδ + o(‖δ‖²), so to that order no perturbation of norm eps moves f more
    than ±eps·v₁. Both signs of all directions are tried and the point with the largest displacement
    is kept: one eigenproblem and 1 + 2k evaluations per input, no random numbers. With ``refine``
    steps of projected gradient ascent begin there; docs/performance.md has how many gradients this
    saves.

    Args:
        vae: the model, in evaluation mode.
        x: inputs [B, *event] in [low, high].
        eps: norm of the perturbation before clipping, float or [B], in the scale of x.
        of: ``"encoder"`` moves f = μ, ``"reconstruction"`` moves f = g∘μ, ``"fisher"`` moves the
            posterior q(z|x), in nats.
        std: choose the directions for the metric that counts the movement of σ too; see
            :func:`vaefast.geometry.pullback_spectrum`. Not for ``"fisher"``, which does.
        directions: number k of eigenvectors.
        refine: gradient steps from the strongest of these points, shrinking as in
            :func:`vaefast.attacks.latent`; the best iterate is kept.
        norm: ``"l2"``, or ``"linf"``: steps eps·sign(v_k).
        low: smallest valid entry, float or [B]; default that of ``vae.box``, else 0.
        high: largest valid entry, float or [B]; default that of ``vae.box``, else 1.
        index: [B] int64, the global number of each input; default ``arange(B)``. It places the
            rows of models that do not lower (:mod:`vaefast.runtime.batching`).
        context: conditions of each input, [B, ...] or a dict of such tensors.

    Returns:
        :class:`AttackResult`: ``objective`` is ‖f(x') − f(x)‖₂ (latent, or pixel scale), of
        ``"fisher"`` the symmetric divergence SKL(q(z|x'), q(z|x)) ≈ ½ δᵀGδ in nats;
        ``best_restart`` 0 for +v₁, 1 for −v₁, 2 for +v₂, ...; x' = x where f does not depend on x.
        A row whose input is not finite is ``failed`` and NaN. ``history`` is the refinement's.

    Raises:
        TypeError: a wrong type or dtype.
        ValueError: a wrong shape or option, x outside [low, high].
        RuntimeError: the model holds dropout or batch norm in training mode.

    Source: Khan, Storkey, "Adversarial robustness of VAEs through the lens of local geometry",
    AISTATS 2023; mathematics.md 3.1, 3.4.
    """
    checks.option(of, "of", ATTACKED)
    check_metric(of, std)
    checks.count(directions, "directions")
    checks.count(refine, "refine", 0)
    options = RULE.fill(
        box_of_model(vae),
        **dict.fromkeys(("alpha", "restarts", "keep")),
        **{"eps": eps, "norm": norm, "steps": refine or None, "low": low, "high": high},
    )
    prepared, x = prepare_images(vae, x, index, context)
    search = make_search(x, RULE, options, seed=0)
    warn_of_radius(search, x, "geometric")
    objective = Displacement(prepared, of)
    own = spectrum(prepared, of, std=std, vectors=directions)
    result = _steps(prepared, x, search, objective, own.vectors)
    if refine:
        result = _refined(prepared, x, search, objective, result)
    warn_of(result, "geometric")
    return result


def _steps(
    prepared: Prepared, x: Tensor, search: Search, objective: Displacement, vectors: Tensor
) -> AttackResult:
    """The strongest of the points along the vectors [B, k, *event]."""

    def run(part: Prepared) -> tuple[Tensor, ...]:
        rows = part.gather
        ball = Ball(part.x, search.eps[rows], search.norm, search.low[rows], search.high[rows])
        points = narrowed(along(ball, vectors[rows].to(part.x.dtype)), x[rows][:, None])
        moved = objective.bind(part)[0]
        values = moved(working(points.flatten(0, 1))).reshape(points.shape[:2])
        best, which = values.max(1)
        return points[torch.arange(len(points), device=points.device), which], best, which

    width = 2 * vectors.shape[1]
    cost = (1 + width) * objective.bytes_per_row()
    x_adv, value, which = prepared.rows(run, cost, width, generic=objective.generic)
    failed = ~finite(x_adv)
    causes = {NO_X: failed & ~finite(x), NO_OBJECTIVE: failed} if failed.any() else {}
    return AttackResult(
        x_adv=x_adv,
        objective=value,
        perturbation_norm=perturbation_norm(x_adv, x, search.norm),
        best_restart=which.masked_fill(failed, -1),
        failed=failed,
        reproducible=_promise(objective, prepared.x),
        reasons=reasons(len(x), causes),
    )


def _refined(
    prepared: Prepared, x: Tensor, search: Search, objective: Displacement, found: AttackResult
) -> AttackResult:
    """Gradient steps from the points that were found; no row becomes weaker."""
    begin = working(found.x_adv).masked_fill(found.x_adv.isnan(), 0.0)[:, None]
    climbed = maximise(objective, prepared, x, replace(search, given=Given(begin, 0)))
    better = climbed.objective > found.objective
    pixels = better.reshape(-1, *[1] * (x.ndim - 1))
    return replace(
        climbed,
        x_adv=torch.where(pixels, climbed.x_adv, found.x_adv),
        objective=torch.where(better, climbed.objective, found.objective),
        perturbation_norm=torch.where(better, climbed.perturbation_norm, found.perturbation_norm),
        best_restart=found.best_restart,
        failed=found.failed,
        reasons=found.reasons,
        reproducible=batching.weakest(found.reproducible, climbed.reproducible),
    )


def _promise(objective: Displacement, x: Tensor) -> str:
    """The metric of the output is a library's product, and the lowered path has no blocks."""
    if not objective.generic and objective.of == "reconstruction":
        return "round-off"
    return batching.reproducible(objective.generic, (*objective.ops, "net_jacobian_gram"), x)
