"""``geometric``: one step along the direction that moves the model most, to second order."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast import checks
from vaefast.attacks.ball import Ball, perturbation_norm, working
from vaefast.attacks.options import check_images, check_model, make_search, own_grad_mode
from vaefast.attacks.presets import Preset
from vaefast.attacks.result import AttackResult
from vaefast.functional.rows import finite
from vaefast.geometry.spectrum import pullback_spectrum
from vaefast.models.footprint import activation_bytes
from vaefast.models.packs import one_pack
from vaefast.models.paths import Paths
from vaefast.models.vae import VAE
from vaefast.runtime import batching
from vaefast.runtime.batching import Rows

__all__ = ["geometric"]

MAPS = {"encoder": "encoder", "output": "reconstruction"}
RULE = Preset(
    "geometric",
    {"norm": "l2", "steps": 1, "restarts": 1, "low": 0.0, "high": 1.0, "keep": "best"},
)


@one_pack
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
        low: smallest valid entry, float or [B]; default 0.
        high: largest valid entry, float or [B]; default 1.
        index: [B] int64, the global number of each input; default ``arange(B)``. It places the
            rows of models that do not lower (:mod:`vaefast.runtime.batching`).

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
    with own_grad_mode():
        vae, x = check_model(vae), check_images(x)
        of = MAPS[checks.option(space, "space", MAPS)]
        options = RULE.fill(
            eps=eps, alpha=None, norm=None, steps=None, restarts=None, low=low, high=high, keep=None
        )
        search = make_search(x, RULE, options, seed=0, index=index)

        paths = Paths.of(vae, working(x[:0]))

        def run(rows: Rows) -> tuple[Tensor, ...]:
            ball = Ball(x[rows], search.eps[rows], "l2", search.low[rows], search.high[rows])
            return _stronger_sign(paths, ball, of, std)

        bytes_per_row = 3 * activation_bytes(lambda x: _footprint(vae, x, of), working(x), vae)
        generic = paths.encoder is None or (paths.pixels is None and space == "output")
        x_adv, objective, sign = batching.evaluate(
            run, search.index, bytes_per_row, generic=generic
        )
    failed = ~finite(x_adv)
    return AttackResult(
        x_adv=x_adv,
        objective=objective,
        perturbation_norm=perturbation_norm(x_adv, x, "l2"),
        best_restart=sign.masked_fill(failed, -1),
        failed=failed,
        reproducible=_promise(generic, of, x),
    )


def _promise(generic: bool, of: str, x: Tensor) -> str:
    """The metric of the output is a library's product, and the lowered path has no blocks."""
    if not generic and of != "encoder":
        return "round-off"
    return batching.reproducible(generic, ("net_forward", "net_vjp", "net_jacobian_gram"), x)


def _stronger_sign(paths: Paths, ball: Ball, of: str, std: bool) -> tuple[Tensor, ...]:
    """(x', displacement, 0 or 1) of the better of x ± eps·v₁."""
    x = working(ball.x)
    step = ball.per_entry(ball.eps) * pullback_spectrum(paths.vae, x, of=of, std=std).vectors[:, 0]
    both = [ball.clip_(x + step).to(ball.x.dtype), ball.clip_(x - step).to(ball.x.dtype)]
    at_x = _displaced(paths, x, of)
    moved = torch.stack(
        [
            torch.linalg.vector_norm((_displaced(paths, working(y), of) - at_x).double(), dim=1)
            for y in both
        ]
    )
    sign = (moved[1] > moved[0]).long()
    return torch.where(ball.per_entry(sign).bool(), both[1], both[0]), moved.amax(0), sign


def _displaced(paths: Paths, x: Tensor, of: str) -> Tensor:
    """What the perturbation is meant to move, [b, n]."""
    return paths.encode(x)[0] if of == "encoder" else paths.reconstruct(x).flatten(1)


def _footprint(vae: VAE, x: Tensor, of: str) -> object:
    return vae.encode(x) if of == "encoder" else vae.reconstruct(x)
