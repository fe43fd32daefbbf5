"""How far the defended posterior of an attacked input is from that of its reference, bounded."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vaefast import checks
from vaefast.hmc.annealing import spread
from vaefast.hmc.critic import critic_bound
from vaefast.hmc.log_marginal import ESTIMATE, LOWER, UPPER, Estimate, LogMarginal, log_marginal
from vaefast.hmc.result import HMCResult
from vaefast.hmc.sample import sample
from vaefast.hmc.start import posterior_draws
from vaefast.models.context import Context
from vaefast.models.prepare import prepare
from vaefast.models.vae import VAE
from vaefast.philox import seed_apart
from vaefast.runtime.grad_mode import own_modes

__all__ = ["TVBound", "tv_bound"]

KEPT = 20  # draws of each chain that the attack term is averaged over


@dataclass(frozen=True)
class TVBound:
    """Terms of the bound for B pairs (x^r, x^a), along the chain at T numbers of transitions.

        TV[q^(t)(z|x^a), q(z|x^r)] ≤ √(½ KL[q^(t)(z|x^a) ‖ p(z|x^a)])
                                   + √(½ KL[q(z|x^r) ‖ p(z|x^r)]) + √(½ KL[p(z|x^r) ‖ p(z|x^a)])

    Args:
        at: the numbers of transitions t, T of them, the first one 0.
        ref, adv: log p(x) of x^r and x^a, with their ELBOs.
        start: KL[q(z|x^a) ‖ p(z|x^a)] at t = 0 from below and from above. For every t > 0 the
            second is an upper bound too: a kernel that leaves p(z|x^a) invariant takes no draw
            further from it (data processing inequality). The KL itself at t > 0 is not estimated.
        critic: per t, a lower bound of KL[q^(t)(z|x^a) ‖ p(z|x^a)] by
            :func:`~vaefast.hmc.critic.critic_bound`; it takes the states of long chains for draws
            from p(z|x^a).
        gap: KL[q(z|x^r) ‖ p(z|x^r)], the amortisation gap, from below and from above.
        attack: KL[p(z|x^r) ‖ p(z|x^a)] = E_{p(z|x^r)}[log p(x^r|z) − log p(x^a|z)]
            − log p(x^r) + log p(x^a), by HMC draws at x^r and the forward runs' log p(x).
        bound: the right hand side from the upper ends, at t = 0 and so, as a bound, at every t;
            an "estimate" of it, as the attack term is one.
        failed: [B] bool.
    """

    at: tuple[int, ...]
    ref: LogMarginal
    adv: LogMarginal
    start: tuple[Estimate, Estimate]
    critic: tuple[Estimate, ...]
    gap: tuple[Estimate, Estimate]
    attack: Estimate
    bound: Estimate
    failed: Tensor

    def numbers(self) -> list[dict[str, Any]]:
        """One record per input, quantity, way to it and t: value, error and kind.

        What is said of a time t > 0 by the value at 0 is an upper bound there, or an estimate of
        one; no value of the KL at t > 0 is claimed.
        """
        kl = "KL[q_t(z|x^a) || p(z|x^a)]"
        later = "upper bound" if self.start[1].kind == UPPER else "estimate of an upper bound"
        found: list[tuple[str, str, int | None, Estimate]] = [
            ("log p(x^r)", "annealing", None, self.ref.lower),
            ("log p(x^r)", "annealing", None, self.ref.upper),
            ("log p(x^a)", "annealing", None, self.adv.lower),
            ("log p(x^a)", "annealing", None, self.adv.upper),
            ("KL[q(z|x^r) || p(z|x^r)]", "annealing", None, self.gap[0]),
            ("KL[q(z|x^r) || p(z|x^r)]", "annealing", None, self.gap[1]),
            ("KL[p(z|x^r) || p(z|x^a)]", "annealing", None, self.attack),
            (kl, "annealing", 0, self.start[0]),
            (kl, "annealing", 0, self.start[1]),
        ]
        found += [
            (kl, "data processing", t, self.start[1]._replace(kind=later)) for t in self.at[1:]
        ]
        found += [(kl, "critic", t, low) for t, low in zip(self.at, self.critic)]
        found += [("TV bound", "all terms", t, self.bound) for t in self.at]
        return [
            {
                "input": row,
                "quantity": name,
                "by": by,
                "t": t,
                "value": v,
                "std_error": e,
                "kind": each.kind,
            }
            for name, by, t, each in found
            for row, (v, e) in enumerate(zip(each.value.tolist(), each.std_error.tolist()))
        ]


def tv_bound(
    vae: VAE,
    x_ref: Tensor,
    x_adv: Tensor,
    *,
    at: Sequence[int] = (0, 10, 100),
    temperatures: int = 200,
    chains: int = 16,
    leapfrog: int = 10,
    steps: int = 500,
    warmup: int = 300,
    critic_chains: int = 128,
    exact_ref: Tensor | None = None,
    exact_adv: Tensor | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    context: Context = None,
    backend: str | None = None,
) -> TVBound:
    """What can be estimated of the total-variation bound of the defence, along the chain.

    Args:
        vae: in eval mode.
        x_ref, x_adv: references and their attacked versions, [B, *event] each.
        at: numbers of transitions t, increasing; 0 is put before them if it is not there.
        temperatures, chains: of :func:`~vaefast.hmc.log_marginal.log_marginal`, for both inputs.
        leapfrog: of all transitions.
        steps, warmup: of the chains at x^r, ``chains`` of them, and at x^a, ``critic_chains``.
        critic_chains: independent chains per input for each side of the critic, at least 8.
        exact_ref, exact_adv: exact draws from p(z|x), [B, d], for inputs that were simulated from
            the model; with them the upper ends are bounds, else estimates.
        seed, index, context, backend: as in :func:`vaefast.hmc.sample`; the context is that of
            both inputs.

    Returns:
        :class:`TVBound`; every number has its standard error and says whether it is a lower bound,
        an upper bound or an estimate.

    Raises:
        TypeError, ValueError: as :func:`vaefast.hmc.sample`; the two inputs differ in shape.

    Source: Kuzina, Welling, Tomczak, NeurIPS 2022 (mathematics.md §1.4); the last term there is
    o(√‖x^a − x^r‖), here it is the divergence that it comes from.
    """
    at = _times(at)
    _same_shape(x_ref, x_adv)
    checks.count(critic_chains, "critic_chains", 8)
    shared: dict[str, Any] = {"seed": seed, "index": index, "context": context, "backend": backend}
    ladder: dict[str, Any] = {
        "temperatures": temperatures,
        "chains": chains,
        "leapfrog": leapfrog,
    } | shared
    ref = log_marginal(vae, x_ref, exact=exact_ref, **ladder)
    adv = log_marginal(vae, x_adv, exact=exact_adv, **ladder)
    long: dict[str, Any] = {"steps": steps, "warmup": warmup, "leapfrog": leapfrog} | shared
    long["mass"] = "posterior"
    drawn = sample(vae, x_ref, chains=chains, keep=min(KEPT, steps), **long)
    attack = _attack(vae, x_ref, x_adv, drawn, ref, adv, shared)
    settled = sample(vae, x_adv, chains=critic_chains, keep="last", **long)
    critic = _along(vae, x_adv, settled, at, critic_chains, leapfrog, shared)
    start, gap = adv.gap, ref.gap
    failed = ref.failed | adv.failed | drawn.failed | settled.failed
    upper = attack.plus(_width(adv))
    return TVBound(
        at, ref, adv, start, critic, gap, attack, _bound(start[1], gap[1], upper), failed
    )


def _times(at: Sequence[int]) -> tuple[int, ...]:
    times = [checks.count(t, "at", 0) for t in at]
    if any(later <= earlier for earlier, later in itertools.pairwise(times)):
        raise ValueError(f"at must be increasing numbers of transitions, got {list(times)}")
    return (*([] if times[:1] == [0] else [0]), *times)


def _same_shape(x_ref: Tensor, x_adv: Tensor) -> None:
    ref, adv = (checks.tensor(x, name) for x, name in ((x_ref, "x_ref"), (x_adv, "x_adv")))
    if ref.shape != adv.shape:
        raise ValueError(f"x_adv must be {list(ref.shape)} like x_ref, got {list(adv.shape)}")


def _width(of: LogMarginal) -> Estimate:
    """How far the bounds of log p(x) are apart, which an upper end adds."""
    value = (of.upper.value - of.lower.value).clamp(min=0.0)
    return Estimate(value, torch.hypot(of.upper.std_error, of.lower.std_error), ESTIMATE)


def _attack(
    vae: VAE,
    x_ref: Tensor,
    x_adv: Tensor,
    drawn: HMCResult,
    ref: LogMarginal,
    adv: LogMarginal,
    shared: dict[str, Any],
) -> Estimate:
    """KL[p(z|x^r) ‖ p(z|x^a)]; the chains of an input are its independent repetitions."""
    z = drawn.z.flatten(3)  # [B, C, T, d]
    chains, kept = z.shape[1:3]
    with own_modes():
        how = {name: shared[name] for name in ("index", "context", "backend")}
        prepared = prepare(vae, x_ref, **how)
        other = x_adv.detach()

        def gained(part: Any) -> tuple[Tensor]:
            here = z[part.gather].flatten(0, 2).to(part.x.dtype)
            law = part.maps.likelihood_at(here)
            gain = law.log_prob(part.x) - law.log_prob(other[part.gather])
            return (gain.view(-1, chains, kept).mean(2),)

        cost = chains * kept * prepared.maps.decoder.bytes_per_row(prepared.itemsize)
        (gain,) = prepared.rows(gained, cost, width=chains * kept)
    mean = Estimate(gain.mean(1), spread(gain) / math.sqrt(chains), ESTIMATE)
    return mean.plus(ref.lower, -1.0).plus(adv.lower)


def _along(
    vae: VAE,
    x: Tensor,
    settled: HMCResult,
    at: tuple[int, ...],
    chains: int,
    leapfrog: int,
    shared: dict[str, Any],
) -> tuple[Estimate, ...]:
    """Critics between q^(t), by a kernel whose step sizes are fixed, and the settled chains."""
    target = settled.z[:, :, 0].flatten(2)
    other = shared | {"seed": seed_apart(shared["seed"], 1)}
    begin = _drawn(vae, x, chains, **other)
    moved = sample(
        vae,
        x,
        init=begin,
        chains=chains,
        warmup=0,
        steps=max(at[-1], 1),
        leapfrog=leapfrog,
        adapt=None,
        step_size=settled.step_size.nan_to_num(0.1),
        mass="posterior",
        **other,
    )
    draws = moved.z.flatten(3)
    found = [begin, *(draws[:, :, t - 1] for t in at[1:])]
    return tuple(Estimate(*critic_bound(z, target), LOWER) for z in found)


def _drawn(
    vae: VAE,
    x: Tensor,
    chains: int,
    *,
    seed: int,
    index: Tensor | None,
    context: Context,
    backend: str | None,
) -> Tensor:
    """Draws from q(z|x), [B, C, d]."""
    with own_modes():
        prepared = prepare(vae, x, index, context=context, backend=backend)
        cost = prepared.maps.mean.bytes_per_row(prepared.itemsize)
        generic = prepared.maps.generic("encoder")
        mean, std = prepared.rows(lambda part: part.maps.posterior(part.x), cost, generic=generic)
    drawn = posterior_draws(mean, std, chains, seed=seed, index=prepared.index)
    return drawn.view(len(mean), chains, mean.shape[1])


def _bound(*terms: Estimate) -> Estimate:
    """Σ √(½ KL), its errors added up, as those of the terms may go together."""
    value, error = torch.zeros_like(terms[0].value), torch.zeros_like(terms[0].value)
    for term in terms:
        ends = [
            torch.sqrt(0.5 * (term.value + k * term.std_error).clamp(min=0)) for k in (-1, 0, 1)
        ]
        value, error = value + ends[1], error + 0.5 * (ends[2] - ends[0])
    return Estimate(value, error, ESTIMATE)
