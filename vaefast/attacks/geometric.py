"""``geometric``: one step along the direction that moves the model most, to second order."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast import checks
from vaefast.attacks.ball import Ball, perturbation_norm, working
from vaefast.attacks.options import box_of_model, make_search, prepare_images, warn_of_radius
from vaefast.attacks.presets import Preset
from vaefast.attacks.result import NO_OBJECTIVE, NO_X, AttackResult, warn_of
from vaefast.functional.rows import finite
from vaefast.geometry.spectrum import spectrum
from vaefast.models.context import Context
from vaefast.models.maps import Maps
from vaefast.models.prepare import Prepared
from vaefast.models.vae import VAE
from vaefast.runtime import batching
from vaefast.runtime.grad_mode import without_grad
from vaefast.runtime.reasons import reasons

__all__ = ["geometric"]

MAPS = {"encoder": "encoder", "output": "reconstruction"}
RULE = Preset(
    "geometric",
    {"norm": "l2", "steps": 1, "restarts": 1, "low": 0.0, "high": 1.0, "keep": "best"},
)


@without_grad
def geometric(
    vae: VAE,
    x: Tensor,
    *,
    eps: float | Tensor,
    space: str = "encoder",
    std: bool = False,
    low: float | Tensor | None = None,
    high: float | Tensor | None = None,
    index: Tensor | None = None,
    context: Context = None,
) -> AttackResult:
    """Perturb each input along the dominant eigenvector of its pullback metric.

        x' = clip(x ± eps·v₁, low, high),  v₁ the top eigenvector of G(x) = JᵀJ

    ‖f(x+δ) − f(x)‖² = δᵀGδ + o(‖δ‖²), so to that order no perturbation of norm eps moves f more.
    Both signs are tried and the one with the larger displacement is kept. One eigenproblem and
    three evaluations per input, no iterations, no random numbers.

    Args:
        vae: the model, in evaluation mode.
        x: inputs [B, *event] in [low, high].
        eps: ℓ2 norm of the perturbation before clipping, float or [B], in the scale of x.
        space: ``"encoder"`` moves f = μ, ``"output"`` moves f = g∘μ.
        std: choose v₁ for the metric that counts the movement of σ too; see
            :func:`vaefast.geometry.pullback_spectrum`.
        low: smallest valid entry, float or [B]; default that of ``vae.box``, else 0.
        high: largest valid entry, float or [B]; default that of ``vae.box``, else 1.
        index: [B] int64, the global number of each input; default ``arange(B)``. It places the
            rows of models that do not lower (:mod:`vaefast.runtime.batching`).
        context: conditions of each input, [B, ...] or a dict of such tensors.

    Returns:
        :class:`AttackResult`: ``objective`` is ‖f(x') − f(x)‖₂ (latent, or pixel scale),
        ``best_restart`` 0 for +v₁ and 1 for −v₁; x' = x where f does not depend on x. A row whose
        input is not finite is ``failed`` and NaN.

    Raises:
        TypeError: a wrong type or dtype.
        ValueError: a wrong shape or option, x outside [low, high].
        RuntimeError: the model holds dropout or batch norm in training mode.

    Source: Khan, Storkey, "Adversarial robustness of VAEs through the lens of local geometry",
    AISTATS 2023; mathematics.md 3.1.
    """
    of = MAPS[checks.option(space, "space", MAPS)]
    options = RULE.fill(
        box_of_model(vae),
        **dict.fromkeys(("alpha", "norm", "steps", "restarts", "keep")),
        **{"eps": eps, "low": low, "high": high},
    )
    prepared, x = prepare_images(vae, x, index, context)
    search = make_search(x, RULE, options, seed=0)
    warn_of_radius(search, x, "geometric")
    direction = spectrum(prepared, of, std=std).vectors[:, 0]

    def run(part: Prepared) -> tuple[Tensor, ...]:
        rows = part.gather
        ball = Ball(x[rows], search.eps[rows], "l2", search.low[rows], search.high[rows])
        return _stronger_sign(part.maps, ball, direction[rows], of)

    cost, generic = 3 * _bytes_per_row(prepared, of), _is_generic(prepared, of)
    x_adv, objective, sign = prepared.rows(run, cost, generic=generic)
    failed = ~finite(x_adv)
    causes = {NO_X: failed & ~finite(x), NO_OBJECTIVE: failed} if failed.any() else {}
    result = AttackResult(
        x_adv=x_adv,
        objective=objective,
        perturbation_norm=perturbation_norm(x_adv, x, "l2"),
        best_restart=sign.masked_fill(failed, -1),
        failed=failed,
        reproducible=_promise(generic, of, prepared.x),
        reasons=reasons(len(x), causes),
    )
    warn_of(result, "geometric")
    return result


def _is_generic(prepared: Prepared, of: str) -> bool:
    return prepared.maps.generic("encoder", *(() if of == "encoder" else ("pixels",)))


def _bytes_per_row(prepared: Prepared, of: str) -> int:
    maps = prepared.maps
    parts = [maps.mean] if of == "encoder" else [maps.mean, maps.pixels]
    return sum(part.bytes_per_row(prepared.itemsize) for part in parts)


def _promise(generic: bool, of: str, x: Tensor) -> str:
    """The metric of the output is a library's product, and the lowered path has no blocks."""
    if not generic and of != "encoder":
        return "round-off"
    return batching.reproducible(generic, ("net_forward", "net_vjp", "net_jacobian_gram"), x)


def _stronger_sign(maps: Maps, ball: Ball, direction: Tensor, of: str) -> tuple[Tensor, ...]:
    """(x', displacement, 0 or 1) of the better of x ± eps·direction."""
    x = working(ball.x)
    step = ball.per_entry(ball.eps) * direction
    both = [ball.clip_(x + step).to(ball.x.dtype), ball.clip_(x - step).to(ball.x.dtype)]
    at_x = _displaced(maps, x, of)
    moved = torch.stack(
        [
            torch.linalg.vector_norm((_displaced(maps, working(y), of) - at_x).double(), dim=1)
            for y in both
        ]
    )
    sign = (moved[1] > moved[0]).long()
    return torch.where(ball.per_entry(sign).bool(), both[1], both[0]), moved.amax(0), sign


def _displaced(maps: Maps, x: Tensor, of: str) -> Tensor:
    """What the perturbation is meant to move, [b, n]."""
    return maps.encode(x)[0] if of == "encoder" else maps.reconstruct(x).flatten(1)
