"""``max_damage``: change the reconstruction of an input as much as a small perturbation can."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaefast import checks, philox
from vaefast.attacks.adaptive import attack_through, check_undefended
from vaefast.attacks.compat import compatible, rule_of
from vaefast.attacks.distances import Distances, MeanDistance
from vaefast.attacks.engine import maximise
from vaefast.attacks.geometric_start import with_geometric_restart
from vaefast.attacks.measures import ImageDistance
from vaefast.attacks.options import (
    ALL_NORMS,
    box_of_model,
    make_search,
    prepare_images,
    warn_of_radius,
)
from vaefast.attacks.presets import Box, Preset
from vaefast.attacks.random_start import START_BYTES
from vaefast.attacks.result import AttackResult, warn_of
from vaefast.attacks.search import Bound, Search, Value
from vaefast.models.context import Context
from vaefast.models.prepare import Prepared
from vaefast.models.vae import VAE
from vaefast.philox import Use
from vaefast.runtime.grad_mode import without_grad
from vaefast.runtime.memory import cached, row_chunks

__all__ = ["Options", "damage", "max_damage"]

OPTIONS = (
    "eps",
    "norm",
    "alpha",
    "steps",
    "restarts",
    "noise_samples",
    "fresh_samples",
    "low",
    "high",
    "keep",
    "init",
    "optimizer",
    "compat",
)


@without_grad
def max_damage(
    vae: VAE,
    x: Tensor,
    *,
    eps: float | Tensor | None = None,
    norm: str | None = None,
    alpha: float | Tensor | None = None,
    steps: int | None = None,
    restarts: int | None = None,
    noise_samples: int | None = None,
    fresh_samples: int | None = None,
    low: float | Tensor | None = None,
    high: float | Tensor | None = None,
    keep: str | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    preset: str | None = None,
    through_defence: Mapping[str, Any] | None = None,
    gradient: str | None = None,
    init: str = "random",
    optimizer: str | None = None,
    compat: str | None = None,
    context: Context = None,
) -> AttackResult:
    """Find perturbations that move the stochastic reconstruction furthest from the clean one.

        max over ‖x' − x‖ ≤ eps, low ≤ x' ≤ high of  E ‖g(μ(x') + σ(x')⊙η) − g(μ(x))‖₂,  η ~ N(0, I)

    Projected gradient ascent through the mean, the standard deviation and the decoder. The search
    averages over ``noise_samples`` draws of η that stay the same over its steps and restarts; the
    best iterate of the best restart by that average is returned, and its objective is reported on
    ``fresh_samples`` new draws, so that it is an unbiased estimate for the returned point. The
    model is only read: its mode and its ``.grad`` are untouched.

    With ``through_defence`` the two reconstructions are those of :func:`vaefast.hmc.defend` with
    these options, whose chains at x' and at x have the same random numbers::

        max E ‖g(z_T(x')) − g(z_T(x))‖₂,  z_T(x) the end of a chain on p(z|x) from q(z|x)

    Each gradient searches on one set of chains, the strongest of each row is chosen on a second
    one and its objective reported on a third. Gradients through a long chain can be useless:
    where its map is chaotic they are noise, where it contracts they forget where it began;
    docs/performance.md has their size against T.

    Args:
        vae: the model, in evaluation mode.
        x: inputs [B, *event] in [low, high].
        eps: radius of the ball, float or [B], at least 0, in the scale of x.
        norm: ``"l2"`` (default), ``"linf"`` or ``"l1"``, the last by plain torch.
        alpha: constant step length, float or [B]; by default the steps shrink linearly from eps to
            eps/100, which finds stronger points than constant steps do.
        steps: gradient steps, default 50.
        restarts: random starts per input, default 1, at most 4096.
        noise_samples: draws of η per gradient, default 8; not of chains.
        fresh_samples: draws of η for the reported objective, default 128; not of chains.
        low: smallest valid entry, float or [B]; default that of ``vae.box``, else 0.
        high: largest valid entry, float or [B]; default that of ``vae.box``, else 1.
        keep: ``"best"`` (default) returns the best restart, ``"all"`` every one (see
            :class:`AttackResult`).
        seed: 64-bit seed of the random starts and of η.
        index: [B] int64, the global number of each input; default 0, 1, ..., B-1.
        preset: ``"barrett2022"``; explicit arguments replace its values.
        through_defence: options of :func:`vaefast.hmc.defend`, such as ``{"steps": 50, "warmup":
            20, "leapfrog": 10}``: attack the defended model (see above), with as many chains
            for search, choice and report as they name: ask for ``"chains": 4`` or more, which
            make the values less noisy. None: the model itself.
        gradient: of the attack through the defence: ``"chain"`` (through every transition),
            ``"last"`` (through the last 20), ``"posterior"`` (of the posterior's expectation,
            from the chains' draws), ``"spsa"`` (none: pairs of images), ``"undefended"`` (that of
            the attack without the defence), or None: all of them, and of each row the strongest.
        init: ``"random"``, or ``"geometric"``: restart 1, after the random one, begins at the
            stronger of x ± eps·v₁ (ℓ∞: eps·sign v₁), v₁ the top eigenvector of the metric of
            x ↦ g(μ(x)). For two restarts or more.
        optimizer: ``"pgd"`` (default), ``"apgd"`` or ``"adam"``, as for :func:`latent`.
        compat: the step of another library, as for :func:`latent`.
        context: conditions of each input, [B, ...] or a dict of such tensors.

    Returns:
        The adversarial inputs; ``objective`` is the distance in pixel scale on fresh draws,
        ``history`` the one on the search's own draws. A row whose input is not finite is
        ``failed`` and NaN; one that never had a gradient to step along is ``failed`` and a random
        start; ``reasons`` says which. Entries of a gradient that are not finite count as 0, and
        are counted.

    Warns:
        AttackWarning: rows failed, or gradients were not finite.
        UserWarning: ``eps`` covers the whole box.

    Raises:
        TypeError: a wrong type or dtype, or no ``eps``.
        ValueError: a wrong shape, device or option, x outside [low, high], or a model that cuts the
            autograd graph.
        RuntimeError: the model holds dropout or batch norm in training mode.

    Source: Camuto et al. 2021 (mathematics.md 2.4). They and Barrett et al. 2022 use L-BFGS-B with
    new noise at every evaluation; here it is projected gradient ascent with common random numbers.
    """
    options = Options.checked(
        seed=seed,
        box=box_of_model(vae),
        preset=preset,
        eps=eps,
        norm=norm,
        alpha=alpha,
        steps=steps,
        restarts=restarts,
        noise_samples=noise_samples,
        fresh_samples=fresh_samples,
        low=low,
        high=high,
        keep=keep,
        init=init,
        optimizer=optimizer,
        compat=compat,
    )
    prepared, x = prepare_images(vae, x, index, context)
    search = options.search(x)
    warn_of_radius(search, x, "max_damage")
    if through_defence is not None:
        search = options.started(search, prepared)
        plain = partial(damage, prepared, x, options)
        how = through_defence, gradient, plain
        result = attack_through(prepared, x, search, ImageDistance(), *how)
    else:
        check_undefended(gradient)
        result = damage(prepared, x, options)
    warn_of(result, "max_damage")
    return result


class Options(NamedTuple):
    """How ``max_damage`` searches: its preset, the preset's options with the caller's, the seed."""

    rule: Preset
    values: dict[str, Any]
    seed: int

    @classmethod
    def checked(
        cls,
        *,
        seed: int,
        box: Box | None = None,
        preset: str | None = None,
        **given: Any,
    ) -> Options:
        """The options of :func:`max_damage`; those that are not given are None."""
        if unknown := sorted(given.keys() - {*OPTIONS}):
            raise TypeError(f"max_damage has no option {unknown[0]!r}; it has {', '.join(OPTIONS)}")
        given = {**dict.fromkeys(OPTIONS), **given}
        compat = given.pop("compat")
        rule = rule_of(preset, "max_damage", compat, given["optimizer"])
        own = {name: given[name] for name in ("alpha", "steps")}
        rule, values = compatible(rule, compat, rule.fill(box, **given), **own)
        return cls(rule, values, seed)

    def search(self, x: Tensor) -> Search:
        """As :func:`make_search` makes it for these inputs."""
        return make_search(x, self.rule, self.values, seed=self.seed, norms=ALL_NORMS)

    def started(self, search: Search, prepared: Prepared) -> Search:
        """The search, with the restart that ``init`` asks for."""
        init = self.values["init"] or "random"
        return with_geometric_restart(search, prepared, init, "reconstruction")


def damage(prepared: Prepared, x: Tensor, options: Options) -> AttackResult:
    """As :func:`max_damage`, for what was prepared and x in the dtype of the result."""
    values, search = options.values, options.started(options.search(x), prepared)
    objective = _Damage(
        prepared,
        options.seed,
        noise_samples=checks.count(values["noise_samples"], "noise_samples"),
        fresh_samples=checks.count(values["fresh_samples"], "fresh_samples"),
    )
    return maximise(objective, prepared, x, search)


class _Damage:
    """Mean distance of the sampled reconstructions of x' from g(μ(x))."""

    ops: tuple[str, ...] = ("net_forward", "net_vjp")

    def __init__(
        self, prepared: Prepared, seed: int, *, noise_samples: int, fresh_samples: int
    ) -> None:
        maps, itemsize = prepared.maps, prepared.itemsize
        self.modules: tuple[object, ...] = (prepared.vae,)
        self.generic = maps.generic("encoder", "pixels")
        self.width = noise_samples
        self.seed, self.noise_samples, self.fresh_samples = seed, noise_samples, fresh_samples
        self.sample_bytes = maps.mean.bytes_per_row(itemsize) + maps.pixels.bytes_per_row(itemsize)
        self.sample_bytes += START_BYTES * maps.latents

    def bytes_per_row(self) -> int:
        return self.noise_samples * self.sample_bytes

    def bind(self, part: Prepared) -> tuple[Bound, Value]:
        mean, _ = part.maps.posterior(part.x)
        centre, distances = part.maps.g(mean), Distances(part.maps)
        fixed = self._noise(part.index, mean, Use.DAMAGE, slice(0, self.noise_samples))

        def reported(point: Tensor) -> Tensor:
            total = torch.zeros(len(point), dtype=torch.float64, device=point.device)
            cost, most = len(point) * self.sample_bytes, cached(len(point), point)
            for samples in row_chunks(self.fresh_samples, cost, most if self.generic else None):
                fresh = self._noise(part.index, mean, Use.FRESH, samples)
                total += distances(point, centre, fresh).sum(1)
            return total / self.fresh_samples

        return Bound(MeanDistance(distances), (centre, fixed)), reported

    def _noise(self, index: Tensor, like: Tensor, use: Use, samples: slice) -> Tensor:
        """[b, S, d] standard normals, the same for every restart of an input."""
        count = samples.stop - samples.start
        step = torch.arange(samples.start, samples.stop, device=index.device).repeat(len(index))
        rows = index.repeat_interleave(count)
        noise = philox.normal(like.shape[1], seed=self.seed, index=rows, step=step, use=use)
        return noise.to(like.dtype).reshape(len(index), count, -1)
