"""Chains as other libraries run them, one after the other, beside ours in one batch."""

from __future__ import annotations

import importlib
import importlib.util
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vaefast.bench.place import Place
from vaefast.bench.runner import Benchmark, Case, Check

__all__ = ["chain_cases"]

CHAINS = (1, 4, 32)
DATA, LATENTS = 200, 16
DRAWS, LEAPFROGS, STEP = 20, 10, 0.05


def chain_cases(place: Place) -> list[Case]:
    """A Bayesian logistic regression, T draws of L leapfrogs with a fixed step, C chains."""
    chains = (2,) if place.tiny else CHAINS
    found = [(f"hamiltorch C={C}", partial(_hamiltorch, C)) for C in chains]
    if importlib.util.find_spec("pyro") is not None:
        found += [(f"pyro C={C}", partial(_pyro, C)) for C in chains]
    return found


def _regression() -> tuple[Tensor, Tensor]:
    generator = torch.Generator(device="cpu").manual_seed(0)
    x = torch.randn(DATA, LATENTS, generator=generator, dtype=torch.float32, device="cpu")
    return x, torch.randint(0, 2, (DATA,), generator=generator, device="cpu").float()


X, Y = _regression()


def log_density(w: Tensor) -> Tensor:
    """log p(w, Y) of one w [d], or of several [n, d]."""
    logits = w @ X.mT
    likelihood = Y * logits - torch.nn.functional.softplus(logits)
    return likelihood.sum(-1) - 0.5 * w.square().sum(-1)


def _starts(chains: int) -> Tensor:
    generator = torch.Generator(device="cpu").manual_seed(1)
    return 0.1 * torch.randn(
        chains, LATENTS, generator=generator, dtype=torch.float32, device="cpu"
    )


def _benchmark(name: str, chains: int, ours: Any, theirs: dict[str, Any], draws: Any) -> Benchmark:
    def moments(run: Any) -> Check:  # random numbers differ, laws do not
        return lambda: (_mean(run()), _mean(draws(ours())))

    return Benchmark(
        op="integrations",
        case=f"{name} C={chains} T={DRAWS} L={LEAPFROGS} logistic {DATA}x{LATENTS} float32 cpu",
        providers={"vaefast": lambda: draws(ours()), **theirs},
        checks={provider: moments(run) for provider, run in theirs.items()},
        bytes=1,
        flop=0,
        tolerance=1.0,
        at_least=1.0 if chains > 1 else 0.0,  # one chain alone has no batch to gain from
        repeatable=False,
    )


def _mean(draws: Tensor) -> Tensor:
    return draws[-DRAWS // 2 :].flatten(0, -2).mean(0)


def _hamiltorch(chains: int) -> Benchmark:
    from vaefast.integrations import hamiltorch

    starts = _starts(chains)

    def ours() -> list[Tensor]:
        return hamiltorch.sample(
            log_density, starts, DRAWS + 1, LEAPFROGS, STEP, batched=True, seed=0
        )

    loop = "one chain after the other, a gradient by autograd per leapfrog, as in hamiltorch"
    theirs = {loop: lambda: torch.stack([_one_chain(start) for start in starts], 1)}
    return _benchmark("hamiltorch.sample", chains, ours, theirs, torch.stack)


def _one_chain(w: Tensor) -> Tensor:
    """Draws [T, d]: L + 1 gradients and two densities a transition."""

    def gradient(at: Tensor) -> Tensor:
        at = at.detach().requires_grad_()
        return torch.autograd.grad(log_density(at), at)[0]

    draws = []
    for _ in range(DRAWS):
        momentum = torch.randn_like(w)
        before = log_density(w) - 0.5 * momentum @ momentum
        moved, p = w, momentum + 0.5 * STEP * gradient(w)
        for leapfrog in range(LEAPFROGS):
            moved = moved + STEP * p
            p = p + (0.5 if leapfrog == LEAPFROGS - 1 else 1.0) * STEP * gradient(moved)
        after = log_density(moved) - 0.5 * p @ p
        level = torch.rand(1, dtype=torch.float32, device="cpu").log()
        w = moved if float(after - before) > float(level) else w
        draws.append(w)
    return torch.stack(draws)


def _pyro(chains: int) -> Benchmark:
    infer = importlib.import_module("pyro.infer")
    from vaefast.integrations import pyro

    starts = _starts(chains)
    options: dict[str, Any] = {
        "step_size": STEP,
        "num_steps": LEAPFROGS,
        "adapt_step_size": False,
        "adapt_mass_matrix": False,
    }

    def potential(params: dict[str, Tensor]) -> Tensor:
        return -log_density(params["w"])

    def run(module: Any, start: Tensor, count: int, **own: Any) -> Tensor:
        kernel = module.HMC(potential_fn=potential, **options)
        mcmc = module.MCMC(
            kernel, DRAWS, warmup_steps=0, num_chains=count, initial_params={"w": start}, **own
        )
        mcmc.run()
        return mcmc.get_samples(group_by_chain=True)["w"].movedim(1, 0)

    def sequential() -> Tensor:
        one = partial(run, infer, count=1, disable_progbar=True)
        return torch.cat([one(start) for start in starts], 1)

    def ours() -> Tensor:
        return run(pyro, starts if chains > 1 else starts[0], chains)

    return _benchmark("pyro.HMC", chains, ours, {"pyro": sequential}, lambda draws: draws)
