"""Pyro's HMC with all chains in one batch: the same kernel arguments, the same layout of samples.

``pyro.infer.MCMC`` runs one process per chain, or one chain after the other; here every leapfrog of
all chains is one evaluation of the potential::

    from vaefast.integrations import pyro as fast
    kernel = fast.HMC(potential_fn=potential, num_steps=8)
    mcmc = fast.MCMC(kernel, 500, warmup_steps=300, num_chains=16, initial_params={"z": z0})
    mcmc.run()
    samples = mcmc.get_samples(group_by_chain=True)  # {"z": [16, 500, ...]}

The sampler is :func:`vaefast.hmc.sample_potential`: dual averaging over the chains and a diagonal
mass from their draws, frozen after the warm-up.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vaefast.hmc.result import HMCResult
from vaefast.hmc.sample_potential import sample_potential
from vaefast.integrations.updates import required

__all__ = ["HMC", "MCMC"]

library: Any = required("pyro")
infer: Any = required("pyro.infer")
util: Any = required("pyro.infer.mcmc.util")
api: Any = required("pyro.infer.mcmc.api")
subsample: Any = required("pyro.poutine.subsample_messenger")

DISCRETE = "a model with discrete latents has no place here; run pyro.infer.MCMC"
NOT_MAPPED = "torch.func.vmap cannot map this model over chains; run pyro.infer.MCMC"

Params = dict[str, Tensor]
Fn = Callable[[Params], Tensor]


class HMC(infer.HMC):
    """``pyro.infer.HMC`` for :class:`MCMC` here; Pyro's own ``MCMC`` runs it as its own.

    Takes Pyro's arguments. Beside Pyro's HMC:

    - ``num_steps`` stays the number of leapfrogs while the step size adapts. Without it, and where
      the step size adapts, a trajectory is a quarter of the target's period, π/2, in place of 2π,
      in units that the adapted mass makes equal; where it does not, it is ``trajectory_length``.
    - ``full_mass=True`` is refused.

    Args:
        batched: ``potential_fn`` takes all chains at once, {name: [n, ...]} ↦ [n]; by default it
            takes one, and is mapped by ``torch.func.vmap``, which knows no branches on values.
        jitter: as for :func:`vaefast.hmc.sample`.
    """

    def __init__(
        self,
        model: Any = None,
        potential_fn: Fn | None = None,
        *args: Any,
        batched: bool = False,
        jitter: float | None = None,
        num_steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, potential_fn, *args, num_steps=num_steps, **kwargs)
        if kwargs.get("full_mass"):
            raise ValueError(
                "full_mass=True has no place here; leave it out, or run pyro.infer.HMC"
            )
        self.batched, self.jitter, self.num_leapfrogs = batched, jitter, num_steps
        self.names_its_length = kwargs.get("trajectory_length") is not None

    def leapfrog(self, warmup: int) -> int | str:
        """L, or that every trajectory is a quarter of the period."""
        if self.num_leapfrogs is not None:
            return self.num_leapfrogs
        if self._adapter.adapt_step_size and warmup > 0:
            if self.names_its_length:
                warnings.warn(
                    "trajectory_length is not held while the step size adapts: a trajectory is a "
                    "quarter of the period; pass num_steps= or adapt_step_size=False",
                    stacklevel=4,
                )
            return "quarter"
        return max(1, int(self.trajectory_length / self.step_size))


class MCMC(api.AbstractMCMC):
    """``pyro.infer.MCMC`` of an :class:`HMC` of this module, all chains in one batch.

    ``run``, ``get_samples``, ``diagnostics`` and ``summary`` are Pyro's; ``result`` has all that
    our sampler says. Random numbers follow ``pyro.set_rng_seed``.

    Args:
        kernel: an :class:`HMC`, of a ``potential_fn`` or of a Pyro model.
        num_samples: per chain.
        warmup_steps: default ``num_samples``.
        initial_params: {name: [num_chains, ...]} in unconstrained space, without the first
            dimension for one chain; of a model by default Pyro's own, drawn for every chain.
        num_chains: C.
        transforms: to unconstrained space, for a ``potential_fn``.

    Raises:
        TypeError: another kernel.
        ValueError: a ``potential_fn`` without ``initial_params``, or those of another number of
            chains.
    """

    def __init__(
        self,
        kernel: HMC,
        num_samples: int,
        warmup_steps: int | None = None,
        initial_params: Params | None = None,
        num_chains: int = 1,
        transforms: dict[str, Any] | None = None,
    ) -> None:
        if not isinstance(kernel, HMC):
            raise TypeError(
                f"kernel must be a vaefast.integrations.pyro.HMC, got {type(kernel).__name__}; "
                "pyro.infer.MCMC runs others"
            )
        super().__init__(kernel, num_chains, transforms)
        self.num_samples = num_samples
        self.warmup_steps = num_samples if warmup_steps is None else warmup_steps
        self._validate_kernel(initial_params)
        if initial_params and num_chains == 1:
            initial_params = {name: value[None] for name, value in initial_params.items()}
        if initial_params:
            self._validate_initial_params(initial_params)
        self.initial_params = initial_params
        self.result: HMCResult | None = None

    def run(self, *args: Any, **kwargs: Any) -> None:
        """Draw; arguments are those of a Pyro model."""
        potential, params, transforms = self._problem(args, kwargs)
        shapes = {name: value.shape[1:] for name, value in params.items()}
        own = potential if self.kernel.batched else _mapped(potential, self.num_chains)
        flat = torch.cat([params[name].reshape(self.num_chains, -1) for name in sorted(params)], 1)
        adapter = self.kernel._adapter
        self.result = sample_potential(
            lambda z: own(_named(z, shapes)),
            flat[None],
            steps=self.num_samples,
            warmup=self.warmup_steps,
            leapfrog=self.kernel.leapfrog(self.warmup_steps),
            step_size=float(self.kernel.step_size),
            adapt="dual_averaging" if adapter.adapt_step_size else None,
            target_accept=adapter.target_accept_prob,
            jitter=self.kernel.jitter,
            mass="warmup" if adapter.adapt_mass_matrix and self.warmup_steps else "unit",
            seed=int(torch.randint(2**62, (1,), device="cpu")),
        )
        drawn = _named(self.result.z[0].flatten(0, 1), shapes)
        lead = self.num_chains, self.num_samples
        self._samples = {
            name: _constrained(transforms, name, value).unflatten(0, lead)
            for name, value in drawn.items()
        }

    def _problem(self, args: Any, kwargs: Any) -> tuple[Fn, Params, dict[str, Any]]:
        """The potential of one chain or of all, where the chains start, the transforms."""
        kernel = self.kernel
        if kernel.model is None:
            assert self.initial_params is not None
            return kernel.potential_fn, self.initial_params, self.transforms or {}
        with library.validation_enabled(False):
            drawn = [self._initialised(args, kwargs) for _ in range(self.num_chains)]
        _, theirs, transforms, trace = drawn[0]
        params = self.initial_params or {
            name: torch.stack([one[0][name] for one in drawn]).detach() for name in drawn[0][0]
        }
        if set(params) != set(_latent(trace)):
            raise NotImplementedError(DISCRETE)
        potential = _potential(kernel.model, transforms, args, kwargs)
        _check_mapped(potential, theirs, params)
        return potential, params, transforms

    def _initialised(self, args: Any, kwargs: Any) -> Any:
        kernel = self.kernel
        return util.initialize_model(
            kernel.model,
            args,
            kwargs,
            transforms=kernel.transforms,
            max_plate_nesting=kernel._max_plate_nesting,
            init_strategy=kernel._init_strategy,
        )

    def get_samples(
        self, num_samples: int | None = None, group_by_chain: bool = False
    ) -> dict[str, Tensor]:
        """{name: [C·T, ...]}, or [C, T, ...] by chain; ``num_samples`` of them, drawn anew."""
        return util.select_samples(self._samples, num_samples, group_by_chain)

    def diagnostics(self) -> dict[str, Any]:
        """As Pyro's: effective sample size and R-hat per site, divergences, acceptance rates."""
        found = util.diagnostics(self._samples)
        result = self.result
        assert result is not None
        marked = result.diverging
        chains = [f"chain {number}" for number in range(self.num_chains)]
        found["divergences"] = {
            name: [] if marked is None else marked[0, number].nonzero()[:, 0].tolist()
            for number, name in enumerate(chains)
        }
        found["acceptance rate"] = dict(zip(chains, result.accept_rate[0].tolist()))
        return found

    def summary(self, prob: float = 0.9) -> None:
        """Print Pyro's table."""
        util.print_summary(self._samples, prob=prob)
        assert self.result is not None
        print(f"Number of divergences: {int(self.result.divergent.sum())}")


def _mapped(potential: Fn, chains: int) -> Fn:
    """The potential of one chain for all of them; for one it is called as it is."""
    if chains > 1:
        return torch.func.vmap(potential)
    return lambda params: potential({name: t[0] for name, t in params.items()}).reshape(1)


def _latent(trace: Any) -> list[str]:
    """The sites of a Pyro model that are neither observed nor a plate's."""
    sites = trace.iter_stochastic_nodes()
    return [name for name, node in sites if not isinstance(node["fn"], subsample._Subsample)]


def _potential(model: Any, transforms: dict[str, Any], args: Any, kwargs: Any) -> Fn:
    """−log p of a model without discrete latents, in unconstrained space, that can be mapped."""

    def potential(params: Params) -> Tensor:
        values = {name: _constrained(transforms, name, value) for name, value in params.items()}
        with library.validation_enabled(False):
            conditioned = library.poutine.condition(model, data=values)
            trace = library.poutine.trace(conditioned).get_trace(*args, **kwargs)
            log_density = trace.log_prob_sum()
        for name, transform in transforms.items():
            volume = transform.log_abs_det_jacobian(values[name], params[name])
            log_density = log_density - volume.sum()
        return -log_density

    return potential


@torch.no_grad()
def _check_mapped(potential: Fn, theirs: Fn, params: Params) -> None:
    """The mapped potential has Pyro's value where every chain starts.

    Raises:
        NotImplementedError: it has not, or the model cannot be mapped.
    """
    try:
        mapped = torch.func.vmap(potential)(params)
    except Exception as error:  # a model is anybody's code
        raise NotImplementedError(f"{NOT_MAPPED}: {str(error).splitlines()[0]}") from error
    one = [
        theirs({name: value[row] for name, value in params.items()}) for row in range(len(mapped))
    ]
    if not torch.allclose(mapped, torch.stack(one).to(mapped), rtol=1e-4, atol=1e-4):
        raise NotImplementedError(f"{NOT_MAPPED}: its energies differ from Pyro's")


def _named(z: Tensor, shapes: dict[str, torch.Size]) -> Params:
    """Points [n, d] by the sites' names, in Pyro's order."""
    names = sorted(shapes)
    parts = z.split([shapes[name].numel() for name in names], 1)
    return {name: part.reshape(-1, *shapes[name]) for name, part in zip(names, parts)}


def _constrained(transforms: dict[str, Any], name: str, value: Tensor) -> Tensor:
    return transforms[name].inv(value) if name in transforms else value
