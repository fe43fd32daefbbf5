"""Annealed importance sampling from q(z|x) to p(x, z) and back, by HMC transitions."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vaefast.functional.hmc import Draws, Noise, State, transition
from vaefast.functional.leapfrog import leapfrogs, per_chain
from vaefast.functional.rows import repeated
from vaefast.hmc.options import Options
from vaefast.hmc.sampler import target_of
from vaefast.hmc.start import posterior_draws
from vaefast.hmc.target import Target
from vaefast.models.calls import HALF
from vaefast.models.posterior import DiagonalGaussian
from vaefast.models.prepare import Prepared
from vaefast.types import Network

__all__ = ["JITTER", "Annealed", "Runs", "ladder", "spread"]

PILOT_CHAINS = 4
PILOT_WARMUP = 30  # transitions at the first temperature before the pilot climbs
GAIN = 0.15  # of a logarithm of the step size, per unit of acceptance probability
TARGET_ACCEPT = 0.8
JITTER = 0.2
STEEPNESS = 4.0  # of the temperatures' sigmoid
ELBO_SAMPLES = 256
RUN = 1 << 24  # transitions set apart for each run of a call, beyond those of a sampler
PILOT, FORWARD, MIXING, REVERSE = (k * RUN for k in range(1, 5))


def ladder(temperatures: int) -> list[float]:
    """0 to 1, closer to each other at both ends."""
    raw = [math.tanh(STEEPNESS * (t / temperatures - 0.5)) for t in range(temperatures + 1)]
    return [(value - raw[0]) / (raw[-1] - raw[0]) for value in raw]


@dataclass(frozen=True)
class Annealed:
    """Chains of f_β ∝ q(z|x)^{1−β} p(x, z)^β; states hold U and gradient of the joint, β = 1."""

    target: Target
    q: DiagonalGaussian  # of the N chains
    inv_mass: Tensor  # [B, d]
    leapfrog: int
    draws: Draws

    def state(self, z: Tensor) -> State:
        return State(z, *self.target.potential(z))

    def log_ratio(self, state: State) -> Tensor:
        """log p(x, z) − log q(z|x), [N] float64."""
        return -state.U - self.q.log_prob(state.z)

    def tempered(self, joint: State, beta: float) -> tuple[Tensor, Tensor]:
        """U_β [N] and its gradient [N, d]."""
        U = beta * joint.U - (1.0 - beta) * self.q.log_prob(joint.z)
        pull = (joint.z - self.q.mean) * torch.exp(-self.q.logvar)
        return U, torch.lerp(pull, joint.grad, beta)

    def move(self, state: State, beta: float, step: Tensor, noise: Noise) -> tuple[State, Tensor]:
        """One transition with step sizes [B]: the new state, and acceptance probabilities [N]."""
        ends: list[State] = []

        def at(z: Tensor) -> tuple[Tensor, Tensor]:
            ends.append(State(z, *self.target.potential(z, state.z)))
            return self.tempered(ends[-1], beta)

        trajectory = partial(
            leapfrogs,
            lambda z: at(z)[1],
            at,
            inv_mass=per_chain(self.inv_mass, state.z),
            leapfrog=self.leapfrog,
        )
        _, info = transition(
            State(state.z, *self.tempered(state, beta)),
            trajectory,
            step=step.to(state.z.dtype),
            inv_mass=self.inv_mass,
            noise=noise,
        )
        taken = info.accepted
        pairs = zip(state, ends[-1])
        z, U, grad = (torch.where(taken.view(-1, *[1] * (a.ndim - 1)), b, a) for a, b in pairs)
        return State(z, U, grad), info.accept_prob


class Runs:
    """The runs of some rows."""

    def __init__(
        self, part: Prepared, options: Options, net: Network | None, backend: str | None
    ) -> None:
        self._part, self._options, self._net, self._backend = part, options, net, backend
        self._dtype = torch.float32 if part.x.dtype in HALF else part.x.dtype
        self._q = [moment.to(self._dtype) for moment in part.maps.encode(part.x)]
        self._rows = len(part.x)

    def bounds(self, betas: list[float], exact: Tensor | None) -> tuple[Tensor, ...]:
        """Both bounds and the ELBO, each with its error; effective weights, acceptance: [n]."""
        sizes = self._step_sizes(betas)
        chains = self._annealed(self._options.chains)
        state, weights, rates = chains.state(self._drawn(0)), [], []
        noises = chains.draws.noises(state.z, FORWARD, len(sizes))
        for (before, beta), size in zip(itertools.pairwise(betas), sizes):
            weights.append((beta - before) * chains.log_ratio(state))
            state, rate = chains.move(state, beta, size, next(noises))
            rates.append(rate)
        forward = self._per_row(torch.stack(weights).sum(0))
        start = state if exact is None else chains.state(exact.to(self._dtype))
        reverse = self._per_row(self._reverse(chains, start, betas, sizes))
        low, low_se, effective = _log_mean(forward)
        high, high_se, _ = _log_mean(-reverse)
        rate = self._per_row(torch.stack(rates).mean(0)).mean(1)
        return low, low_se, -high, high_se, *self._elbo(chains), effective, rate

    def _reverse(
        self, chains: Annealed, state: State, betas: list[float], sizes: list[Tensor]
    ) -> Tensor:
        """log w of runs down the ladder, after transitions at β = 1 that part the chains."""
        for noise in chains.draws.noises(state.z, MIXING, len(betas) // 2):
            state, _ = chains.move(state, 1.0, sizes[-1], noise)
        weights, noises = [], chains.draws.noises(state.z, REVERSE, len(sizes))
        for t in range(len(betas) - 1, 0, -1):
            state, _ = chains.move(state, betas[t], sizes[t - 1], next(noises))
            weights.append((betas[t] - betas[t - 1]) * chains.log_ratio(state))
        return torch.stack(weights).sum(0)

    def _step_sizes(self, betas: list[float]) -> list[Tensor]:
        """Step sizes [n] of every temperature, from a climb that is used for nothing else."""
        chains = self._annealed(PILOT_CHAINS)
        state = chains.state(self._drawn(1, PILOT_CHAINS))
        latents = max(state.z.shape[1], 1)
        log_step = state.z.new_full((self._rows,), math.log(0.5 * latents**-0.25))
        sizes, climb = [], [betas[1]] * PILOT_WARMUP + betas[1:]
        noises = chains.draws.noises(state.z, PILOT, len(climb))
        for beta in climb:
            state, rate = chains.move(state, beta, log_step.exp(), next(noises))
            accepted = self._per_row(rate).mean(1).nan_to_num(TARGET_ACCEPT)
            log_step = (log_step + GAIN * (accepted - TARGET_ACCEPT)).clamp(-20.0, 0.5)
            sizes.append(log_step.exp())
        return sizes[PILOT_WARMUP:]

    def _elbo(self, chains: Annealed) -> tuple[Tensor, Tensor]:
        passes = -(-ELBO_SAMPLES // self._options.chains)
        drawn = [chains.log_ratio(chains.state(self._drawn(2 + k))) for k in range(passes)]
        ratios = torch.cat([self._per_row(ratio) for ratio in drawn], 1)  # [n, S]
        return ratios.mean(1), spread(ratios) / math.sqrt(ratios.shape[1])

    def _annealed(self, chains: int) -> Annealed:
        part, options = self._part, self._options._replace(chains=chains)
        target = target_of(part, options, self._net, None, self._dtype, self._backend)
        mean, logvar = self._q
        moments = DiagonalGaussian(repeated(mean, chains), repeated(logvar, chains), mean.shape[1:])
        draws = Draws(part.index, options.seed, options.jitter)
        return Annealed(target, moments, torch.exp(logvar), options.leapfrog, draws)

    def _drawn(self, number: int, chains: int | None = None) -> Tensor:
        """Draws from q(z|x) [N, d], others for every number."""
        chains = chains or self._options.chains
        mean, logvar = self._q
        return posterior_draws(
            mean,
            torch.exp(0.5 * logvar),
            chains,
            seed=self._options.seed,
            index=self._part.index,
            step=FORWARD + number,
        )

    def _per_row(self, values: Tensor) -> Tensor:
        """[n, C] from [N]."""
        return values.view(self._rows, -1 if self._rows else 2)


def _log_mean(log_weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log of the mean of exp [n, C], its standard error to first order, and effective weights."""
    count = log_weights.shape[1]
    share = torch.softmax(log_weights, 1)
    value = torch.logsumexp(log_weights, 1) - math.log(count)
    return value, spread(share) * math.sqrt(count), 1.0 / share.square().sum(1)


def spread(values: Tensor) -> Tensor:
    """Standard deviation of each row [n, C], also of no rows."""
    apart = values - values.mean(1, keepdim=True)
    return torch.sqrt(apart.square().sum(1) / (values.shape[1] - 1))
