"""Hamiltonian Monte Carlo on the true posterior p(z|x) of every input."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vaefast.hmc.health import say
from vaefast.hmc.promotion import promoted
from vaefast.hmc.result import HMCResult
from vaefast.hmc.sampler import sampled
from vaefast.models.context import Context
from vaefast.models.prepare import prepare
from vaefast.models.vae import VAE
from vaefast.runtime.distributions import unchecked
from vaefast.runtime.grad_mode import own_modes

__all__ = ["complete", "sample"]


def sample(
    vae: VAE,
    x: Tensor,
    *,
    init: Tensor | None = None,
    chains: int = 1,
    steps: int = 1000,
    warmup: int | None = None,
    leapfrog: int | str | None = None,
    step_size: float | Tensor = 0.1,
    adapt: str | None = "dual_averaging",
    target_accept: float | None = None,
    jitter: float | None = None,
    mass: str | Tensor | None = None,
    schedule: str | None = None,
    group: int | Tensor | None = None,
    keep: str | int | None = None,
    precision: str = "ieee",
    memory_format: str | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    context: Context = None,
    backend: str | None = None,
    progress: bool = False,
) -> HMCResult:
    """Draw from the posterior p(z|x) ∝ p(x|z) p(z) of every input, C chains each.

    One transition, with U(z) = −log p(x|z) − log p(z)::

        p ~ N(0, M),  (z', p') = L leapfrogs of length ε(1 + jitter·w),  w uniform in (−1, 1),
        accept z' with probability min(1, exp(U(z) + ½pᵀM⁻¹p − U(z') − ½p'ᵀM⁻¹p'))

    The step size ε adapts in the warm-up and is then frozen, so that what is kept leaves the
    posterior invariant. Nothing is pooled over rows: a row depends on its input, ``seed`` and
    ``index`` only. The jitter keeps a fixed path length from resonating with a direction of the
    posterior. Energy and gradient are carried along: a transition costs exactly L gradients.

    A decoder that lowers to a network, with the prior N(0, I), runs in the fused ops. With another
    prior, on a CPU, its likelihood still does, one op per leapfrog beside the prior's gradient
    (closed for a :class:`~vaefast.models.GaussianMixture`). Any other decoder, the likelihoods of
    counts and :func:`~vaefast.models.from_log_joint` go through autograd, on CUDA with the
    transition captured once per shape and replayed as one graph (:mod:`vaefast.runtime.capture`).
    All make the same transition to round-off; long chains, which amplify it, agree in law. Beside
    the first way a row depends on the batch that it stands in by round-off
    (``reproducible="round-off"``); ``vaefast.same_bits()`` keeps even its bits
    (:mod:`vaefast.runtime.batching`).

    Args:
        vae: the model; it is neither moved nor changed.
        x: [B, *event].
        init: start of the chains, [B, d] (shared) or [B, C, d]; default a draw from q(z|x) each.
            Where latents are no vectors, d may also stand for their shape.
        chains: C, chains per input, at least 1 (R-hat needs 2 or more).
        steps: transitions after the warm-up, at least 1.
        warmup: transitions before them, not kept; default 500. With ``adapt=None`` they are plain
            burn-in.
        leapfrog: L, leapfrogs a transition, or how every row gets its own (the result's
            ``leapfrog`` says which): ``"quarter"``, π/2 divided by its step size, a quarter of the
            period of a posterior that the mass makes round; ``"chees"``, learnt in the warm-up from
            8 chains or more (:mod:`vaefast.hmc.chees`). Default "quarter" with a dense mass or one
            from the warm-up, else 10, under the schedule 20.
        step_size: ε, positive, float or [B]; where the adaptation starts.
        adapt: ``"dual_averaging"`` towards an acceptance probability, per row, averaged over the
            row's chains; None leaves ``step_size`` as it is. Not used with ``schedule``.
        target_accept: that acceptance probability, in (0, 1); default 0.8.
        jitter: relative half-width of the step's jitter, in [0, 1); default 0.4 with
            ``leapfrog="quarter"``, else 0.2. One factor a transition and row, constant along
            the trajectory.
        mass: M, one of the following. The default, after a warm-up of at least 50 transitions
            and for a decoder that lowers and has one head, is "dense" for at most 64 latents and
            "warmup" for more; "unit" elsewhere, under the schedule and with ``adapt=None``, where
            a step size is in the units of z. The result's ``mass`` says which.

            - ``"unit"``: the identity.
            - ``"posterior"``: diagonal, the precision of q(z|x).
            - ``"pullback"``: the diagonal of I + JᵀΛJ, the decoder's pullback metric at the mean of
              q(z|x), with Λ Fisher's information of the likelihood; d products with J.
            - ``"dense"``: all of that matrix, for at most 64 latents; after a window of a warm-up
              of 50 transitions or more taken anew, at the mean of the chains. On CUDA, and for
              decoders that stay modules, every leapfrog is a call of its own
              (:mod:`vaefast.hmc.whitened`).
            - ``"warmup"``: diagonal, from the row's own draws in windows of the warm-up, as in
              Stan; it starts from "posterior".
            - positive masses [d] or [B, d].
        schedule: ``"kuzina2022"`` runs the published defence: steps // 2 transitions of burn-in,
            L = 20, no jitter, unit mass, the clamped likelihood for Bernoulli models, a step size
            that goes on adapting (:class:`~vaefast.hmc.groups.GroupStepSize`), and by default
            only the last state. Values by data set are in ``vaefast.hmc.KUZINA2022``.
        group: rows that share the schedule's step size: rows per group (consecutive rows of x) or
            an int64 [B] of group identifiers; default every row by itself (with its chains). All
            rows of a group must be in the call; with identifiers this cannot be checked.
        keep: ``"all"`` (default; T = steps), ``"last"`` (default under the schedule; T = 1), or a
            number T of evenly spaced draws, steps // T transitions apart, the last one included.
        precision: ``"ieee"``, ``"tf32"`` or ``"bf16"`` for the gradients inside a trajectory; those
            at its ends and the energies are always ``"ieee"``, so that the chain stays exact
            (mathematics.md §10). The last two where the backend has them, on the second path on
            CUDA. ``"float64"`` takes copies of the model, x and everything else in float64, as
            ``vae.double()`` and ``x.double()`` would: where a result says ``unresolved``.
        memory_format: ``"contiguous"`` or ``"channels_last"``, the layout of a convolutional
            decoder's weights (copies) and images; tensor cores prefer the second. None: the faster
            one on a CPU, contiguous on a GPU. Equal to round-off, and of no use to the fused ops.
        seed: seed of all random numbers.
        index: [B] int64, the global indices of the inputs; default 0 to B − 1.
        context: conditions per row for a conditional VAE, [B, ...] or a dict of such; handed to
            encode, decode and prior, on the second path.
        backend: ``"reference"``, ``"cpp"``, ``"triton"`` or None for the best one.
        progress: show a progress bar; the run is cut for it, and for nothing else.

    Returns:
        :class:`HMCResult`. z has x's dtype, float32 for half-precision models, float64 where that
        is the ``precision``, and the latents' own shape. A row whose input, start or energy at the
        start is not finite is ``failed`` and NaN. A row whose energies are too large, or whose
        posterior is too narrow, for the dtype is ``unresolved``; one warning names such rows and
        those with a chain that never moved after the warm-up.

    Raises:
        ValueError: an option out of range, a wrong shape, or a group cut in two.
        TypeError: a wrong type or dtype.
        RuntimeError: dropout or batch norm in training mode; a backend that cannot run.
        MemoryError: the draws exceed the memory budget; ``keep="last"`` always fits.

    Source: Neal, "MCMC using Hamiltonian dynamics" (2011); Hoffman and Gelman, JMLR 15 (2014),
    for the adaptation, here per row; Kuzina, Welling, Tomczak, NeurIPS 2022, for the use as a
    defence and the schedule.
    """
    with own_modes(), unchecked():
        vae, x, context = promoted(vae, x, context, precision)
        prepared = prepare(vae, x, index, context=context, backend=backend)
        result = sampled(
            prepared,
            init=init,
            chains=chains,
            steps=steps,
            warmup=warmup,
            leapfrog=leapfrog,
            step_size=step_size,
            adapt=adapt,
            target_accept=target_accept,
            jitter=jitter,
            mass=mass,
            schedule=schedule,
            group=group,
            keep=keep,
            precision=precision,
            memory_format=memory_format,
            seed=seed,
            numbered=index is not None,
            backend=backend,
            progress=progress,
        )
    say("hmc.sample", result.failed, result.reasons, result.z.dtype)
    return result


def complete(**options: Any) -> dict[str, Any]:
    """Options of :func:`sample` as :func:`~vaefast.hmc.sampler.sampled` takes them.

    What is not given has its default.

    Raises:
        TypeError: no option of that name.
    """
    defaults = dict(sample.__kwdefaults__ or {})
    unknown = sorted(options.keys() - defaults.keys())
    if unknown:
        raise TypeError(f"sample() has no option {unknown[0]!r}; it has {', '.join(defaults)}")
    given = defaults | options
    numbered = given.pop("index") is not None
    del given["context"]
    return {**given, "numbered": numbered}
