"""HMC on the groups of a hierarchical VAE: on all of them, or on those at the top."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vaefast import checks, philox
from vaefast.hmc.health import say
from vaefast.hmc.promotion import promoted
from vaefast.hmc.result import HMCResult
from vaefast.hmc.sample import complete
from vaefast.hmc.sampler import sampled
from vaefast.models.calls import images
from vaefast.models.group_view import BELOW, GroupView, check_top
from vaefast.models.groups import Hierarchical
from vaefast.models.likelihoods import check_pixels
from vaefast.models.prepare import Prepared, prepare
from vaefast.philox import Use
from vaefast.runtime.distributions import unchecked
from vaefast.runtime.grad_mode import own_modes

__all__ = ["GroupDefence", "GroupDraws", "defend_groups", "sample_groups"]


@dataclass(frozen=True)
class GroupDraws:
    """Draws of the top groups of a hierarchical VAE.

    Args:
        chain: the sampler's result; its z [B, C, T, d] are the top groups side by side.
        shapes: of the top groups.
        below: [B, d'], what the groups below are made from in every chain of a row: their noise
            (``"prior"``), or their values (``"held"``).
    """

    chain: HMCResult
    shapes: tuple[tuple[int, ...], ...]
    below: Tensor

    @property
    def z(self) -> list[Tensor]:
        """The top groups, [B, C, T, *shape_k] each."""
        sizes = [torch.Size(shape).numel() for shape in self.shapes]
        parts = self.chain.z.split(sizes, dim=-1)
        return [part.unflatten(-1, shape) for part, shape in zip(parts, self.shapes)]


@dataclass(frozen=True)
class GroupDefence:
    """Reconstructions from the last states of the chains.

    Args:
        z: all groups of the last state, [B, C, *shape_k] each.
        reconstruction: [B, C, *event], pixel scale.
        draws: of the sampler. In its ``failed`` rows everything is NaN.
    """

    z: list[Tensor]
    reconstruction: Tensor
    draws: GroupDraws


def sample_groups(
    model: Hierarchical,
    x: Tensor,
    *,
    top: int | None = None,
    below: str = "prior",
    temperature: float = 1.0,
    init: Tensor | None = None,
    **options: Any,
) -> GroupDraws:
    """Draw groups of latents from the posterior of each input, one joint accept per transition.

        U(z_1..z_K) = −log p(x|z_1..z_K) − Σ_k log p(z_k|z_1..z_{k−1})

    With all groups the chain leaves p(z_1..z_K|x) invariant. With the first k the groups below are
    a function of those above and of numbers that are drawn once for each input, so that U is a
    function of the state, and the chain leaves a conditional posterior invariant:

    - ``below="prior"``: z_j = mean_j + temperature·std_j·ε_j, by the prior given the groups above,
      with fixed ε_j ~ N(0, I); the chain's law is p(z_1..z_k | x, ε_{k+1..K}). Groups below carry
      nothing of x, as little as of an attack on it.
    - ``below="held"``: z_j stays where a path of q(z|x) has drawn it; the law is
      p(z_1..z_k | x, z_{k+1..K}), one block of a Gibbs sampler.

    Args:
        model: a :class:`~vaefast.models.HierarchicalVAE`, or of
            :func:`~vaefast.models.as_hierarchical`, in eval mode.
        x: [B, *event].
        top: k, groups that are sampled; all by default.
        below: what becomes of the others.
        temperature: of the prior's draws below, at least 0; 0 takes the means.
        init: [B, d] or [B, C, d], start of the top groups side by side; by default a path drawn
            from q(z|x), each chain its own.
        options: of :func:`vaefast.hmc.sample`.

    Returns:
        :class:`GroupDraws`.

    Raises:
        As :func:`vaefast.hmc.sample`, and TypeError, ValueError: the model has no groups, or not as
        many, or lacks ``prior_path``.

    Source: Kuzina et al. 2022, code of their hierarchical models (joint accept; groups below drawn
    anew inside of the energy, which then is random; here the draws are fixed).
    """
    with own_modes(), unchecked():
        run = _Run(model, x, top, below, temperature, init, options)
        draws = run.sampled()
    say("hmc.sample_groups", draws.chain.failed, draws.chain.reasons, draws.chain.z.dtype)
    return draws


def defend_groups(
    model: Hierarchical,
    x: Tensor,
    *,
    top: int | None = None,
    below: str = "prior",
    temperature: float = 1.0,
    init: Tensor | None = None,
    keep: str | int = "last",
    **options: Any,
) -> GroupDefence:
    """Replace q(z|x) by chains on the posterior, as :func:`vaefast.hmc.defend` does.

    Arguments as :func:`sample_groups`, whose groups below the top ones complete the last state.

    Raises:
        As :func:`sample_groups`, and ValueError: the model has no ``decode``.
    """
    check_top(model, top)
    if not model.can("decode"):
        raise ValueError("a defence needs reconstructions; pass decode= to as_hierarchical")
    with own_modes(), unchecked():
        run = _Run(model, x, top, below, temperature, init, {"keep": keep, **options})
        draws = run.sampled()
        defence = run.decoded(draws)
    say("hmc.defend_groups", draws.chain.failed, draws.chain.reasons, draws.chain.z.dtype)
    return defence


class _Run:
    """One call: checked, with the numbers that the groups below are made from."""

    def __init__(
        self,
        model: Hierarchical,
        x: Tensor,
        top: int | None,
        below: str,
        temperature: float,
        init: Tensor | None,
        options: dict[str, Any],
    ) -> None:
        top = check_top(model, top)
        checks.option(below, "below", BELOW)
        if not 0.0 <= checks.number(temperature, "temperature") < float("inf"):
            raise ValueError(f"temperature must be at least 0 and finite, got {temperature:g}")
        if top < len(model.shapes) and below == "prior" and not model.can("prior_path"):
            raise ValueError(
                'below="prior" needs prior_path= of as_hierarchical; pass it, or below="held"'
            )
        if "context" in options:
            raise TypeError("a hierarchical VAE takes no context=")
        images(x)
        if model.likelihood is not None:
            check_pixels(x, model.likelihood)
        self.options = complete(**options)
        view = GroupView(model, top, below, tuple(x.shape[1:]))
        view, x, _ = promoted(view, x, None, self.options["precision"])  # type: ignore[assignment]
        self.view, self.temperature, self.init = view, temperature, init
        index = checks.row_index(options.get("index"), len(x), x.device)
        self.chains = checks.count(self.options["chains"], "chains")
        start = self._start(x, index)
        below_rows = start.pop("below")
        if init is None:
            self.init = start["top"]
        given = {"below": below_rows}
        backend = self.options["backend"]
        self.prepared: Prepared = prepare(
            self.view, x, options.get("index"), context=given, backend=backend
        )

    def _start(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        """Each chain's top groups [B, C, d], drawn along a path, and what those below are of."""
        sizes = self.view.model.sizes
        d, rest = self.view.latent_dim or 0, sum(sizes[self.view.top :])
        seed, held = self.options["seed"], self.view.below == "held"
        if not held or not rest:
            noise = _normal(rest, seed, index, 0, Use.LATENT, x.dtype)
            below = self.temperature * noise
        part = prepare(self.view, x, index, context={"below": x.new_zeros(len(x), rest)})
        width = d + (rest if held else 0)

        def run(rows: Prepared) -> tuple[Tensor, ...]:
            drawn = [
                self.view.draw(rows.x, _normal(width, seed, rows.index, c, Use.INITIAL, x.dtype))
                for c in range(self.chains)
            ]
            return (torch.stack(drawn, dim=1),)

        cost = part.maps.mean.bytes_per_row(x.element_size())
        (paths,) = part.rows(run, cost, generic=True)
        return {"top": paths[..., :d], "below": paths[:, 0, d:] if held and rest else below}

    def sampled(self) -> GroupDraws:
        given = {**self.options, "init": self.init}
        chain = sampled(self.prepared, **given)
        shapes = self.view.model.shapes[: self.view.top]
        context: Any = self.prepared.context
        return GroupDraws(chain, shapes, context["below"])

    def decoded(self, draws: GroupDraws) -> GroupDefence:
        """All groups and reconstructions of the last states; NaN in failed rows."""
        model, failed, x = self.view.model, draws.chain.failed, self.prepared.x
        z = draws.chain.z[:, :, -1]  # [B, C, d]
        usable = z.masked_fill(failed[:, None, None], 0.0)
        below = draws.below.masked_fill(failed[:, None], 0.0).to(z.dtype)

        def run(part: Prepared) -> tuple[Tensor, ...]:
            own = below[part.gather].repeat_interleave(self.chains, dim=0)
            groups = self.view.groups(usable[part.gather].flatten(0, 1), own)
            pixels = model.g(groups).reshape(len(own), *x.shape[1:])
            found = [*groups, pixels.to(x.dtype)]
            return tuple(t.unflatten(0, (-1, self.chains)) for t in found)

        cost = self.chains * self.prepared.maps.decoder.bytes_per_row(x.element_size())
        found = self.prepared.rows(run, cost, width=self.chains, generic=True)
        blank = [_nan_where(failed, t) for t in found]
        return GroupDefence(blank[:-1], blank[-1], draws)


def _normal(
    count: int, seed: int, index: Tensor, lane: int, use: Use, dtype: torch.dtype
) -> Tensor:
    return philox.normal(count, seed=seed, index=index, lane=lane, use=use, dtype=dtype)


def _nan_where(failed: Tensor, values: Tensor) -> Tensor:
    return values.masked_fill(failed.view(-1, *[1] * (values.ndim - 1)), torch.nan)
