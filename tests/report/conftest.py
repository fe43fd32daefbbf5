"""A made-up audit: every number is drawn, none measured, so that the page is tested alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vaefast.attacks import AttackResult
from vaefast.audit.job import Plan
from vaefast.audit.progress import Timing
from vaefast.audit.run import Audit, Outcome
from vaefast.audit.settings import AuditSettings
from vaefast.certify import Guarantee

B, LATENT, STEPS = 24, 5, 10


def _outcome(generator, x, name, norm, eps, *, labels):
    shape = x.shape
    noise = eps * torch.randn(shape, generator=generator)
    climb = torch.rand(STEPS + 1, B, generator=generator, dtype=torch.float64).cumsum(0) * eps
    result = AttackResult(
        x_adv=(x + noise).clamp(0, 1),
        objective=climb[-1],
        perturbation_norm=torch.full((B,), eps, dtype=torch.float64),
        best_restart=torch.zeros(B, dtype=torch.int64),
        failed=torch.zeros(B, dtype=torch.bool),
        history=climb,
    )
    draw = np.random.default_rng(int(eps * 1000))
    values = {
        "objective": climb[-1].numpy(),
        "perturbation_norm": np.full(B, eps),
        "failed": np.zeros(B, bool),
        "msssim_input": draw.uniform(0.8, 0.95, B),
        "msssim": draw.uniform(0.3, 0.5, B) - eps,
        "msssim_defended": draw.uniform(0.5, 0.7, B) - eps,
        "likelihood_degradation": draw.lognormal(-1, 0.5, B),
        "defence_accept_rate": draw.uniform(0.7, 0.9, B),
        "defence_divergent": np.zeros(B, np.int64),
    }
    if labels:
        values["predicted"] = draw.integers(0, 10, B)
        values["predicted_defended"] = draw.integers(0, 10, B)
    return Outcome(Plan(name, norm, eps, eps), result, x.flip(0), x.roll(1, 0), values)


def _inputs(*, labels):
    draw = np.random.default_rng(0)
    names = [
        "reconstruction_error",
        "robust_probability",
        "robust_probability_lower",
        "margin_first_order",
        "margin_whitened",
        "encoder_frobenius_norm",
        "encoder_spectral_norm",
        "encoder_spectral_norm_whitened",
        "reconstruction_spectral_norm",
        "pullback_spectral_radius",
        "pullback_entropy",
        "msssim_resampled",
        "clean_msssim_defended",
        "clean_defence_accept_rate",
    ]
    values = {name: draw.uniform(0.5, 0.9, B) for name in names}
    values |= {
        "index": np.arange(B),
        "failed": np.zeros(B, bool),
        "margin_abstain": np.arange(B) < 2,
        "clean_defence_divergent": np.zeros(B, np.int64),
    }
    if labels:
        values |= {"label": np.arange(B) % 10, "predicted": np.arange(B) % 10}
        values["clean_predicted_defended"] = np.arange(B) % 7
    return values


def _as_table(audit):
    """The same numbers, of inputs that are no images and have no box."""

    def renamed(values):
        return {name.replace("msssim", "distance"): column for name, column in values.items()}

    outcomes = [replace(o, values=renamed(o.values)) for o in audit.outcomes]
    values = renamed(audit.values)
    box = {"low": -np.inf, "high": np.inf}
    flat = {name: getattr(audit, name).flatten(1) for name in ("x", "directions")}
    return replace(audit, outcomes=outcomes, values=values, msssim="", **flat, **box)


def _with_certificates(audit):
    """Certified margins of all inputs, an attack's of the first eight, of which one broke none."""
    empirical = np.full(B, np.nan)
    empirical[:8] = audit.values["margin_whitened"][:8] + 0.2
    empirical[3] = np.inf
    values = audit.values | {
        "margin_certified": 0.5 * audit.values["margin_whitened"],
        "margin_empirical": empirical,
    }
    return replace(audit, values=values, certificate=Guarantee.LOCAL_RUN)


@pytest.fixture
def made_up_audit():
    def make(
        *,
        labels=True,
        channels=1,
        side=8,
        guarantee=Guarantee.FIRST_ORDER,
        table=False,
        classes=(),
        certified=False,
    ):
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(B, channels, side, side, generator=generator)
        settings = AuditSettings(inputs=B, eps=(0.1, 0.2), attack_steps=STEPS)
        plans = [("latent", "linf", e) for e in settings.eps]
        plans += [("max_damage", "l2", e) for e in settings.eps]
        audit = Audit(
            settings=settings,
            data_name="made-up",
            x=x,
            reconstruction=x.roll(1, 0),
            r=0.8,
            guarantee=guarantee,
            msssim="window 7, 1 scale",
            outcomes=[_outcome(generator, x, *plan, labels=labels) for plan in plans],
            values=_inputs(labels=labels),
            eigenvalues=np.sort(np.random.default_rng(1).lognormal(size=(B, LATENT)))[:, ::-1],
            directions=x - 0.5,
            notes=[] if labels else ["The data came without labels."],
            timings=[Timing("attack", B, 10 * B, "attack steps", 1.5)],
            classes=classes,
        )
        if certified:
            audit = _with_certificates(audit)
        return _as_table(audit) if table else audit

    return make
