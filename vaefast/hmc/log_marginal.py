"""log p(x) of every input, between two bounds."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import checks
from vaefast.hmc.annealing import JITTER, Runs, ladder
from vaefast.hmc.health import SamplerWarning
from vaefast.hmc.inputs import latent_shape
from vaefast.hmc.options import Options
from vaefast.hmc.plan import PIXEL_BYTES, STATE_BYTES, lowered
from vaefast.models.context import Context
from vaefast.models.likelihoods import check_pixels
from vaefast.models.prepare import Prepared, prepare
from vaefast.models.vae import VAE
from vaefast.runtime import batching
from vaefast.runtime.distributions import unchecked
from vaefast.runtime.grad_mode import own_modes
from vaefast.runtime.reasons import listed, marked

__all__ = ["ESTIMATE", "LOWER", "UPPER", "Estimate", "LogMarginal", "log_marginal"]

CROSSED = 4.0  # standard errors
LOWER, UPPER, ESTIMATE = "lower bound", "upper bound", "estimate"


class Estimate(NamedTuple):
    """A number per input, what it may be off by, and what it is.

    Args:
        value: [B] float64, nats.
        std_error: [B] float64, nats, its Monte-Carlo standard error.
        kind: "lower bound" or "upper bound" (in expectation), or "estimate".
    """

    value: Tensor
    std_error: Tensor
    kind: str

    def plus(self, other: Estimate, sign: float = 1.0, kind: str | None = None) -> Estimate:
        """self + sign·other; the errors are added as if independent."""
        error = torch.hypot(self.std_error, other.std_error)
        return Estimate(self.value + sign * other.value, error, kind or self.kind)


@dataclass(frozen=True)
class LogMarginal:
    """log p(x) of B inputs, nats, between a bound and an estimate, or two bounds where exact draws
    are given; a row that ``failed`` is NaN.

    Args:
        lower: log of the mean weight of the forward runs; it exceeds log p(x) by b or more with
            probability at most e^−b, whatever the transitions are.
        upper: minus the log of the mean inverse weight of the reverse runs. An "upper bound" (as
            above) where they start at exact posterior draws, else an "estimate": it is one if the
            draws that they start at, states of the chains, have reached the posterior. Its
            ``std_error`` is over the runs and holds for the draws that they start at: one exact
            draw starts all runs of an input, so the spread over such draws is larger (measured
            two to four times with few temperatures).
        elbo: E_q[log p(x, z) − log q(z|x)].
        weights: [B], effective number of the forward runs' weights, at most ``chains``.
        accept_rate: [B], of the forward runs' transitions.
        failed: [B] bool, the row's input or a model output is not finite.
        reproducible: as in :class:`~vaefast.hmc.result.HMCResult`.
    """

    lower: Estimate
    upper: Estimate
    elbo: Estimate
    weights: Tensor
    accept_rate: Tensor
    failed: Tensor
    reproducible: str

    @property
    def gap(self) -> tuple[Estimate, Estimate]:
        """KL(q(z|x) ‖ p(z|x)) = log p(x) − ELBO from below and from above: the amortisation gap."""
        low, high = (bound.plus(self.elbo, -1.0) for bound in (self.lower, self.upper))
        return low, high


def log_marginal(
    vae: VAE,
    x: Tensor,
    *,
    temperatures: int = 200,
    chains: int = 16,
    leapfrog: int = 5,
    exact: Tensor | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    context: Context = None,
    backend: str | None = None,
) -> LogMarginal:
    """Sandwich log p(x) of every input by annealed importance sampling, and with it the KL of q.

        f_β(z) = q(z|x)^{1−β} p(x, z)^β,   0 = β_0 < ... < β_T = 1,   z_0 ~ q(z|x),
        z_t by one HMC transition that leaves f_{β_t} invariant,
        log w = Σ_t (β_t − β_{t−1}) [log p(x, z_{t−1}) − log q(z_{t−1}|x)],   E w = p(x)

    and in reverse, from z_T ~ p(z|x) down, E 1/w = 1/p(x). As U is linear in β and −log q costs d
    operations, the annealed energy and its gradient are those of the joint, from one fused
    potential per leapfrog where the decoder lowers, and a sum: 2½ T·L gradients a chain (up, T/2
    transitions that part the chains at β = 1, down), and T·L for each of 4 chains that set the step
    sizes per row and temperature.

    Args:
        vae: in eval mode.
        x: [B, *event].
        temperatures: T, steps of the ladder, at least 2.
        chains: independent runs per input and direction, at least 2.
        leapfrog: L of each transition.
        exact: for inputs that were simulated from the model, x ~ p(x|z): these z, [B, d], which are
            exact draws from p(z|x). None: the reverse runs start at states of long chains.
        seed, index: which random numbers a row gets.
        context: conditions of each input.
        backend: as in :func:`vaefast.hmc.sample`.

    Returns:
        :class:`LogMarginal`.

    Warns:
        SamplerWarning: an upper end lies below its lower bound: an estimate that started at draws
            which had not reached the posterior.

    Raises:
        TypeError, ValueError: as :func:`vaefast.hmc.sample`.

    Source: Neal, Statistics and Computing 11 (2001); Grosse, Ghahramani, Adams, arXiv 1511.02543
    (bidirectional Monte Carlo); Wu et al., ICLR 2017 (for decoders; their chains start at p(z)).
    """
    checks.count(temperatures, "temperatures", 2)
    checks.count(chains, "chains", 2)
    options = _options(chains, checks.count(leapfrog, "leapfrog"), seed)
    with own_modes(), unchecked():
        prepared = prepare(vae, x, index, context=context, backend=backend)
        check_pixels(prepared.x, vae.likelihood)
        found = _sandwiched(prepared, options, temperatures, exact, backend)
    _warn_of_crossed(found)
    return found


def _warn_of_crossed(found: LogMarginal) -> None:
    """One line for rows whose upper end lies below the lower one, beyond the errors."""
    low, high = found.lower, found.upper
    apart = low.value - high.value > CROSSED * torch.hypot(low.std_error, high.std_error)
    if bool(apart.any()):
        warnings.warn(
            f"hmc.log_marginal: in {int(apart.sum())} of {len(apart)} inputs "
            f"({listed(marked(apart))}) the upper end lies below the lower bound: the draws that "
            "it starts at are not the posterior's; pass more temperatures= or a larger leapfrog=",
            SamplerWarning,
            stacklevel=3,
        )


def _options(chains: int, leapfrog: int, seed: int) -> Options:
    return Options.checked(
        chains=chains,
        steps=1,
        warmup=0,
        leapfrog=leapfrog,
        adapt=None,
        jitter=JITTER,
        mass="posterior",
        schedule=None,
        keep="last",
        precision="ieee",
        memory_format=None,
        seed=seed,
    )


def _checked(exact: Tensor, prepared: Prepared) -> Tensor:
    """Exact draws, flat [B, d] in x's dtype."""
    x, shape = prepared.x, latent_shape(prepared.vae)
    checks.same_device(x=x, exact=checks.tensor(exact, "exact"))
    d = torch.Size(shape).numel()
    if list(exact.shape) not in ([len(x), d], [len(x), *shape]):
        raise ValueError(f"exact must be [B, d] = [{len(x)}, {d}], got {list(exact.shape)}")
    return exact.detach().reshape(len(x), d).to(x.dtype)


def _sandwiched(
    prepared: Prepared,
    options: Options,
    temperatures: int,
    exact: Tensor | None,
    backend: str | None,
) -> LogMarginal:
    maps, x, chains = prepared.maps, prepared.x, options.chains
    if exact is not None:
        exact = _checked(exact, prepared).unsqueeze(1).expand(-1, chains, -1)
    net = lowered(prepared, options)
    if net is not None:
        uses = 2 * temperatures * options.leapfrog
        net = prepared.packs.packed("decoder", net, backend=backend, uses=uses)
    betas = ladder(temperatures)

    def run(part: Prepared) -> tuple[Tensor, ...]:
        start = None if exact is None else exact[part.gather].flatten(0, 1)
        return Runs(part, options, net, backend).bounds(betas, start)

    generic = net is None or maps.generic("encoder")
    state = maps.decoder.bytes_per_row(prepared.itemsize) + PIXEL_BYTES * prepared.pixels
    cost = chains * (state + STATE_BYTES * maps.latents)
    low, low_se, high, high_se, elbo, elbo_se, weights, rate = prepared.rows(
        run, cost, width=chains, generic=generic
    )
    return LogMarginal(
        lower=Estimate(low, low_se, LOWER),
        upper=Estimate(high, high_se, ESTIMATE if exact is None else UPPER),
        elbo=Estimate(elbo, elbo_se, ESTIMATE),
        weights=weights,
        accept_rate=rate,
        failed=~(low.isfinite() & high.isfinite() & elbo.isfinite()),
        reproducible=batching.reproducible(generic, ("net_forward", "net_potential"), x, backend),
    )
