"""``latent``: move the posterior of an input as far as a small perturbation can."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vaefast import checks
from vaefast.attacks.adaptive import attack_through, check_undefended
from vaefast.attacks.ball import working
from vaefast.attacks.compat import compatible, rule_of
from vaefast.attacks.divergences import DIVERGENCES, SLOPES
from vaefast.attacks.engine import maximise
from vaefast.attacks.geometric_start import with_geometric_restart
from vaefast.attacks.measures import ClassAfter, LatentDistance
from vaefast.attacks.objectives import Classifier, LatentClassChange, PosteriorChange
from vaefast.attacks.options import (
    ALL_NORMS,
    box_of_model,
    check_images,
    make_search,
    penalty_of,
    prepare_images,
    warn_of_radius,
)
from vaefast.attacks.penalty import Penalised
from vaefast.attacks.result import AttackResult, warn_of
from vaefast.models.calls import images
from vaefast.models.context import Context
from vaefast.models.prepare import Prepared
from vaefast.models.vae import VAE
from vaefast.runtime.grad_mode import without_grad

__all__ = ["latent"]

METRICS = {  # what describes each divergence to second order, and whether with J_σ's term
    **dict.fromkeys(("skl", "kl_forward", "kl_reverse"), ("fisher", False)),
    "w2": ("encoder", True),
}


@without_grad
def latent(
    vae: VAE,
    x: Tensor,
    *,
    eps: float | Tensor | None = None,
    norm: str | None = None,
    divergence: str | None = None,
    target: Tensor | None = None,
    classifier: Classifier | None = None,
    alpha: float | Tensor | None = None,
    steps: int | None = None,
    restarts: int | None = None,
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
    penalty: float | Tensor | None = None,
    context: Context = None,
) -> AttackResult:
    """Find perturbations that change the posterior q(z|x) most, or bring it closest to a target's.

        untargeted: max D(q(z|x'), q(z|x)),   targeted: max −D(q(z|x'), q(z|target)),
        over ‖x' − x‖ ≤ eps and low ≤ x' ≤ high

    Projected gradient ascent from random starts that are uniform in the ball (an untargeted attack
    has no gradient at x itself); all inputs and restarts run in one batch. The best iterate of the
    best restart is returned. The model is only read: its mode and its ``.grad`` are untouched.

    Args:
        vae: the model, in evaluation mode.
        x: inputs [B, *event] in [low, high].
        eps: radius of the ball, float or [B], at least 0, in the scale of x; over all entries of
            an input, not averaged.
        norm: ``"linf"`` (default), ``"l2"`` or ``"l1"`` (the exact projection to ball and box and
            the steepest step in them; plain torch, no fused step).
        divergence: D, in nats unless said; q_a is the posterior at x', q_r the reference's.
            ``"skl"`` (default) ½KL(q_a‖q_r) + ½KL(q_r‖q_a); ``"kl_forward"`` KL(q_r‖q_a);
            ``"kl_reverse"`` KL(q_a‖q_r); ``"means"`` ‖μ_a − μ_r‖²; ``"w2"`` ‖μ_a − μ_r‖² +
            ‖σ_a − σ_r‖²; ``"clf"`` how far the largest other logit of ``classifier`` at μ_a
            lies above that of the class predicted at μ_r, positive where the class changed
            (targeted: −D is how far the target class lies above all others).
        target: inputs like x whose posterior is sought (encoded once). For ``"clf"`` either those
            or classes [B] int64: labels where the classifier has ``classes``, as a
            :class:`vaefast.metrics.LatentClassifier` has; columns of the logits elsewhere. None:
            untargeted.
        classifier: for ``"clf"``: a differentiable map of means [n, d] to logits [n, K], such
            as a :class:`vaefast.metrics.LatentClassifier`.
        alpha: constant step length, float or [B]; by default the steps shrink linearly from eps to
            eps/100, which finds stronger points than constant steps do.
        steps: gradient steps, default 50.
        restarts: random starts per input, default 1, at most 4096.
        low: smallest valid entry, float or [B]; default that of ``vae.box``, else 0.
        high: largest valid entry, float or [B]; default that of ``vae.box``, else 1.
        keep: ``"best"`` (default) returns the best restart, ``"all"`` every one (see
            :class:`AttackResult`).
        seed: 64-bit seed of the random starts.
        index: [B] int64, the global number of each input; row b's random numbers depend on
            ``(seed, index[b])`` only. Default 0, 1, ..., B-1.
        preset: a published setting, ``"kuzina2022"``, ``"kuzina2022-supervised"``,
            ``"photoguard"`` or ``"mist"``; explicit arguments replace its values. See
            ``vaefast.attacks.PRESETS``.
        through_defence: options of :func:`vaefast.hmc.defend`, such as ``{"steps": 50}``: attack
            the ends z_T of the defence's chains in place of q(z|x'). ``divergence`` is then
            ``"means"`` (default; E‖z_T(x') − z_T(x)‖², chains with the same random numbers) or
            ``"clf"`` (the classifier reads z_T, its mean over the chains counts): a chain's end
            has no density for the others.
        gradient: through the defence, as in :func:`max_damage`; None: all, of each row the
            strongest.
        init: ``"random"``, or ``"geometric"``: restart 1, after the random one, begins at the
            stronger of x ± eps·v₁ (ℓ∞: eps·sign v₁), v₁ the top eigenvector of Fisher's metric, of
            J_μᵀJ_μ for ``"means"`` and ``"clf"``, with J_σ's term for ``"w2"``. For two restarts
            or more; untargeted.
        optimizer: ``"pgd"`` (default); ``"apgd"``, Auto-PGD: momentum, and steps that halve where
            they stop paying, the first of them ``alpha`` or 2·eps (Croce and Hein 2020); or
            ``"adam"`` with steps of ``alpha``, by default 1 % of the box.
        compat: ``"torchattacks"``, ``"foolbox"``, ``"art"`` or ``"cleverhans"``: the step of that
            library with its floor of the gradient's norm, order of clip and projection, random
            start, step lengths and number of steps, and its last iterate in place of the best;
            see ``vaefast.attacks.compat``. The gradient is that of each row's own objective.
        penalty: λ, float or [B], at least 0: the objective less λ‖x' − x‖₂ is maximised, in the
            box, and in a ball only where there is ``eps``. Default then ``norm="l2"``,
            ``optimizer="adam"``, steps of 1 % of the box, 200 of them, from N(x, 0.01² I).
        context: conditions of each input, [B, ...] or a dict of such tensors.

    Returns:
        The adversarial inputs and their objective (±D, larger is stronger). A row whose input is
        not finite is ``failed`` and NaN; one that never had a gradient to step along is ``failed``
        and a random start; ``reasons`` says which. Entries of a gradient that are not finite count
        as 0, and are counted. With half-precision x the search runs in float32 and its result is
        rounded to x's dtype towards x, so that it stays in the ball.

    Warns:
        AttackWarning: rows failed, or gradients were not finite.
        UserWarning: ``eps`` covers the whole box.

    Raises:
        TypeError: a wrong type or dtype, or no ``eps``.
        ValueError: a wrong shape, device or option, x outside [low, high], or an encoder that cuts
            the autograd graph.
        RuntimeError: the model holds dropout or batch norm in training mode.

    Source: Kuzina, Welling, Tomczak 2022 (objectives, mathematics.md 1.1), Madry et al. 2018
    (projected gradient steps). The published optimiser is ``preset="kuzina2022"``.
    """
    rule = rule_of(preset, "latent", compat, optimizer, penalty)
    options = rule.fill(
        box_of_model(vae),
        eps=eps,
        norm=norm,
        divergence=divergence,
        alpha=alpha,
        steps=steps,
        restarts=restarts,
        low=low,
        high=high,
        keep=keep,
        optimizer=optimizer,
    )
    rule, options = compatible(rule, compat, options, alpha=alpha, steps=steps)
    if through_defence is not None:
        name = checks.option(divergence or "means", "divergence", ("means", "clf"))
    else:
        check_undefended(gradient)
        name = checks.option(options["divergence"], "divergence", (*DIVERGENCES, "clf"))
    if rule.targeted and target is None:
        raise ValueError(f"preset {preset!r} is a targeted attack; pass target=")
    prepared, x = prepare_images(vae, x, index, context)
    soft = penalty_of(x, penalty, options, through_defence)
    search = make_search(x, rule, options, seed=seed, norms=ALL_NORMS)
    if eps is not None or penalty is None:
        warn_of_radius(search, x, "latent")
    if init != "random" and target is not None:
        raise ValueError(
            'init="geometric" leads away from x, not to a target; leave one of them out'
        )
    of, std = METRICS.get(name, ("encoder", False))
    search = with_geometric_restart(search, prepared, init, of, std=std)
    objective = _objective(prepared, x, target, name, classifier)
    maximised = objective if soft is None else Penalised(objective, soft)
    plain = partial(maximise, maximised, prepared, x, search)
    if through_defence is None:
        result = plain()
    else:
        measure = (
            ClassAfter(objective)
            if isinstance(objective, LatentClassChange)
            else LatentDistance(objective.target)
        )
        result = attack_through(prepared, x, search, measure, through_defence, gradient, plain)
    warn_of(result, "latent")
    return result


def _objective(
    prepared: Prepared,
    x: Tensor,
    target: Tensor | None,
    divergence: str,
    classifier: Classifier | None,
) -> PosteriorChange | LatentClassChange:
    if divergence != "clf":
        if classifier is not None:
            raise ValueError(f'classifier is for divergence="clf", got {divergence!r}')
        target = None if target is None else _check_target(target, x)
        return PosteriorChange(prepared, target, SLOPES[divergence])
    if not callable(classifier):
        raise TypeError('divergence="clf" needs classifier=, a function from means to logits')
    if isinstance(classifier, torch.nn.Module):
        checks.eval_mode(classifier)
    if target is not None:
        target = _check_classes(target, x) if _is_classes(target) else _check_target(target, x)
    return LatentClassChange(prepared, target, classifier)


def _is_classes(target: Tensor) -> bool:
    return not checks.tensor(target, "target").is_floating_point()


def _check_target(target: Tensor, x: Tensor) -> Tensor:
    images(target, "target")
    checks.shape(target, "target", x.shape, "x")
    checks.same_device(x=x, target=target)
    if target.dtype != x.dtype:
        raise TypeError(
            f"target must be {checks.short(x.dtype)} like x, got {checks.short(target.dtype)}; "
            "pass target.to(x.dtype)"
        )
    return working(check_images(target, "target"))


def _check_classes(target: Tensor, x: Tensor) -> Tensor:
    if target.dtype != torch.int64:
        raise TypeError(
            f"target classes must be int64, got {checks.short(target.dtype)}; pass target.long()"
        )
    checks.shape(target, "target", [len(x)], "the rows of x")
    checks.same_device(x=x, target=target)
    return target
