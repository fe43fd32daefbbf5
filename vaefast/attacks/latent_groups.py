"""``latent_groups``: move the top groups of a hierarchical VAE's posterior."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vaefast import checks, philox
from vaefast.attacks import presets
from vaefast.attacks.ball import working
from vaefast.attacks.divergences import DIVERGENCES, SLOPES, Divergence, Sloped
from vaefast.attacks.engine import maximise
from vaefast.attacks.latent import _check_target
from vaefast.attacks.objectives import PosteriorChange, _nan_unless_finite
from vaefast.attacks.options import check_images, make_search, prepare_images, warn_of_radius
from vaefast.attacks.result import AttackResult, warn_of
from vaefast.attacks.search import Bound, Value
from vaefast.models import context as conditions
from vaefast.models.group_view import GroupView, check_top
from vaefast.models.groups import Hierarchical
from vaefast.models.likelihoods import check_pixels
from vaefast.models.prepare import Prepared
from vaefast.philox import Use
from vaefast.runtime.grad_mode import without_grad

__all__ = ["latent_groups"]

FRESH = 32  # paths that the result is reported on


@without_grad
def latent_groups(
    model: Hierarchical,
    x: Tensor,
    *,
    top: int = 1,
    eps: float | Tensor | None = None,
    norm: str | None = None,
    divergence: str | None = None,
    target: Tensor | None = None,
    draws: int = 4,
    alpha: float | Tensor | None = None,
    steps: int | None = None,
    restarts: int | None = None,
    low: float | Tensor | None = None,
    high: float | Tensor | None = None,
    keep: str | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    preset: str | None = None,
) -> AttackResult:
    """Find perturbations that change the posteriors of the top groups most.

        max E_η Σ_{k ≤ top} D(q(z_k|x', z_1..z_{k−1}), q(z_k|x, z*_1..z*_{k−1})),
        z and z* the paths that the same noise η draws through the posteriors of x' and of x,
        over ‖x' − x‖ ≤ eps and low ≤ x' ≤ high; or min of it, with a target in the place of x

    The search sees the same few η in every step (common random numbers); what is reported as the
    ``objective`` is the mean over other η, 32 of them. The first group depends on none.

    Args:
        model: a :class:`~vaefast.models.HierarchicalVAE`, or of
            :func:`~vaefast.models.as_hierarchical`, in eval mode.
        x: inputs [B, *event] in [low, high].
        top: groups that are attacked, from the top on.
        divergence: D, as of :func:`vaefast.attacks.latent`, without ``"clf"``; default ``"skl"``.
        target: inputs like x whose posteriors are sought; None: untargeted.
        draws: paths η of each input that the search sees.
        eps, norm, alpha, steps, restarts, low, high, keep, seed, index: as of
            :func:`vaefast.attacks.latent`.
        preset: ``"kuzina2022"`` or ``"kuzina2022-supervised"``.

    Returns:
        :class:`AttackResult`, its objective in nats.

    Warns, raises: as :func:`vaefast.attacks.latent`; and TypeError, ValueError: the model has no
        groups, or not as many.

    Source: Kuzina et al. 2022, code of their hierarchical models (the sum over the top groups along
    the sampled path, drawn anew in every step there).
    """
    top = check_top(model, top)
    checks.count(draws, "draws")
    rule = presets.find(preset, "latent")
    options = rule.fill(
        None,
        eps=eps,
        norm=norm,
        divergence=divergence,
        alpha=alpha,
        steps=steps,
        restarts=restarts,
        low=low,
        high=high,
        keep=keep,
    )
    name = checks.option(options["divergence"], "divergence", DIVERGENCES)
    if rule.targeted and target is None:
        raise ValueError(f"preset {preset!r} is a targeted attack; pass target=")
    x = check_images(x)
    if model.likelihood is not None:
        check_pixels(x, model.likelihood)
    paths = _Paths(model.sizes[:top], 1 if top == 1 else draws, philox.check_seed(seed))
    view = GroupView(model, top, "held", tuple(x.shape[1:]))
    rows = checks.row_index(index, len(x), x.device)
    context: conditions.Context = {
        "noise": paths.drawn(rows, paths.draws, Use.DAMAGE, working(x[:0])),
        "below": x.new_zeros(len(x), sum(model.sizes[top:]), dtype=working(x[:0]).dtype),
    }
    prepared, x = prepare_images(view, x, index, context)
    search = make_search(x, rule, options, seed=seed)
    warn_of_radius(search, x, "latent_groups")
    target = None if target is None else _check_target(target, x)
    objective = _GroupChange(prepared, target, name, paths)
    result = maximise(objective, prepared, x, search)
    warn_of(result, "latent_groups")
    return result


@dataclass(frozen=True)
class _Paths:
    """The noise of paths through the top groups.

    Args:
        sizes: of the groups.
        draws: of each input in the search.
        seed: of all.
    """

    sizes: list[int]
    draws: int
    seed: int

    def drawn(self, index: Tensor, draws: int, use: Use, like: Tensor) -> Tensor:
        """[B, S, d] for the inputs with these numbers."""
        noise = [
            philox.normal(
                sum(self.sizes), seed=self.seed, index=index, step=s, use=use, dtype=like.dtype
            )
            for s in range(draws)
        ]
        return torch.stack(noise, dim=1)


class _GroupChange(PosteriorChange):
    """The change of the top groups, in the mean over the paths; reported on fresh ones."""

    def __init__(
        self, prepared: Prepared, target: Tensor | None, divergence: str, paths: _Paths
    ) -> None:
        super().__init__(prepared, target, _MeanOver(SLOPES[divergence], paths.draws))
        self._paths, self.width = paths, paths.draws
        self._single = DIVERGENCES[divergence]

    def bytes_per_row(self) -> int:
        return self._paths.draws * super().bytes_per_row()

    def bind(self, part: Prepared) -> tuple[Bound, Value]:
        searched, same = super().bind(part)
        if len(self._paths.sizes) == 1:
            return searched, same
        source = part.x if self.target is None else self.target[part.gather]
        noise = self._paths.drawn(part.index, FRESH, Use.FRESH, part.x)
        sign = 1.0 if self.target is None else -1.0
        return searched, _Fresh(part, source, noise, self._single, sign)


@dataclass(frozen=True)
class _Fresh:
    """The mean over other paths, one at a time."""

    part: Prepared
    source: Tensor  # [b, *event]
    noise: Tensor  # [b, S, d]
    divergence: Divergence
    sign: float

    def __call__(self, point: Tensor) -> Tensor:
        restarts = len(point) // len(self.source)
        total = _nan_unless_finite(self.source).repeat_interleave(restarts)
        for s in range(self.noise.shape[1]):
            own = {"noise": self.noise[:, s : s + 1]}
            at_source = self.part.vae.encode(self.source, context=own)
            reference = [t.repeat_interleave(restarts, 0) for t in at_source]
            repeated = conditions.as_keyword(conditions.repeated(own, restarts))
            change = self.divergence(*self.part.vae.encode(point, **repeated), *reference)
            total = total + self.sign * change / self.noise.shape[1]
        return total


@dataclass(frozen=True)
class _MeanOver:
    """Divergences of S paths side by side, as their mean; equal for equal settings."""

    divergence: Sloped
    draws: int

    def __call__(
        self, mean: Tensor, logvar: Tensor, mean_ref: Tensor, logvar_ref: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        value, by_mean, by_logvar = self.divergence(mean, logvar, mean_ref, logvar_ref)
        share = None if by_logvar is None else by_logvar / self.draws
        return value / self.draws, by_mean / self.draws, share
