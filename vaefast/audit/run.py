"""One audit of one VAE on one data set, from inputs to a table of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaefast import metrics
from vaefast.attacks.result import AttackResult, faults
from vaefast.audit import margins as margin_stage
from vaefast.audit import ordering
from vaefast.audit import stages as stage
from vaefast.audit.blocks import by_blocks
from vaefast.audit.columns import Column, columns, in_scale
from vaefast.audit.job import Job, Plan, plans
from vaefast.audit.progress import Stages, Timing
from vaefast.audit.settings import AuditSettings
from vaefast.audit.stages import Attacked, Defended
from vaefast.certify import Guarantee
from vaefast.data import Dataset
from vaefast.metrics import LatentClassifier
from vaefast.models import VAE
from vaefast.runtime.grad_mode import without_autocast

__all__ = ["Audit", "Outcome", "run"]

Values = dict[str, np.ndarray]  # [B] each, by name of a column


@dataclass(frozen=True)
class Outcome:
    """One attack, what it did to the reconstruction, and what the defence made of it."""

    plan: Plan
    result: AttackResult
    reconstruction: Tensor  # [B, *event], of the adversarial input, no defence
    defended: Tensor  # [B, *event]
    values: Values  # columns.ATTACK_COLUMNS


@dataclass(frozen=True)
class Audit:
    """Everything that an audit found, row by row; a report shows it."""

    settings: AuditSettings
    data_name: str
    x: Tensor  # [B, C, H, W], or [B, D] where the inputs are no images
    reconstruction: Tensor  # of the clean input, from one sample of q(z|x)
    r: float  # the radius of the margins, pixel scale
    guarantee: Guarantee  # of the margins
    msssim: str  # window and scales, "" where distances are compared
    outcomes: list[Outcome]
    values: Values  # columns.INPUT_COLUMNS
    eigenvalues: np.ndarray  # [B, m], of the encoder's pullback metric, descending
    directions: Tensor  # like x, its leading eigenvectors
    notes: list[str]
    timings: list[Timing]
    low: float = 0.0  # smallest and largest valid entry
    high: float = 1.0
    classes: tuple[str, ...] = ()  # names of the classes, empty where they are numbers
    certificate: Guarantee | None = None  # of the certified margins, where there are any
    form: str = ""  # of the encoder's bound behind these
    why_form: str = ""  # why it is not the default's

    @property
    def images(self) -> bool:
        return self.x.ndim == 4

    @property
    def bounded(self) -> bool:
        """Whether the box is finite."""
        return math.isfinite(self.high - self.low)

    @property
    def measure(self) -> str:
        """What compares reconstructions: "msssim" or "distance"."""
        return "msssim" if "msssim_resampled" in self.values else "distance"

    @property
    def has_labels(self) -> bool:
        return "predicted" in self.values

    def objective_unit(self, plan: Plan) -> str:
        """Of what an attack maximised."""
        return in_scale(plan.objective_unit(self.settings), self.images)

    def table(self) -> list[Column]:
        """The columns of results.parquet."""
        units = {o.plan.name: self.objective_unit(o.plan) for o in self.outcomes}
        per_attack = {o.plan.name: o.values for o in self.outcomes}
        options: dict[str, Any] = {"guarantee": self.guarantee, "images": self.images}
        options |= {"certificate": self.certificate, "form": self.form}
        options["why_form"] = self.why_form
        return columns(self.values, per_attack, units, **options)


@without_autocast
def run(vae: VAE, data: Dataset, settings: AuditSettings, stages: Stages) -> Audit:
    """Attack, defend, measure and certify the first test inputs of ``data``.

    Args:
        vae: in evaluation mode, on the device that the audit shall use.
        data: images or tables in their box; labels, where they come, add the accuracy columns.
        settings: the size of the audit; ``inputs`` is cut to the test inputs there are.
        stages: shows progress and keeps the times.

    Returns:
        The audit; its numbers, ``timings`` aside, repeat for the same seed, machine, versions and
        thread count.

    Raises:
        TypeError: a model in half precision, which has no margins.
    """
    settings, notes = _fit_to_data(settings, data)
    x = _inputs(vae, data.x_test[: settings.inputs])
    job = Job(vae, x, settings, stages, data.low, data.high)
    classifier = _classifier(job, data, notes)
    attacks = [stage.attack(job, plan) for plan in plans(settings, job.x[0].numel())]
    clean = stage.defend(job, job.x, "clean inputs")
    defences = [stage.defend(job, a.result.x_adv, a.plan.title) for a in attacks]
    measured = stage.measure(job)
    eigenvalues, directions = measured.pop("eigenvalues"), measured.pop("directions")
    r = settings.r or stage.unchanged_radius(vae, job.x, settings.seed)
    margins = margin_stage.margins(job, r, notes)
    measured |= margins.values
    reference = stage.sample_reconstruction(vae, job.x, settings.seed, stage.CLEAN)
    values = _clean_values(job, clean, reference, classifier) | _arrays(measured)
    if classifier is not None and data.y_test is not None:
        values["label"] = data.y_test[: len(job.x)].cpu().numpy()
    known = {name: v for name, v in values.items() if name != "margin_certified"}
    values["failed"] = _any_nan(known) | clean.failed.cpu().numpy()
    if settings.empirical:
        values |= _arrays({"margin_empirical": margin_stage.empirical(job, r, margins)})
    notes += ordering.violations(values)
    outcomes = _outcomes(job, attacks, defences, reference, classifier)
    return Audit(
        settings=settings,
        data_name=data.name,
        x=job.x,
        reconstruction=reference,
        r=r,
        guarantee=margins.guarantee,
        certificate=margins.certificate,
        form=margins.form,
        why_form=margins.why_form,
        msssim=_msssim_sizes(job.x) if job.measure == "msssim" else "",
        outcomes=outcomes,
        values=values,
        eigenvalues=eigenvalues.cpu().numpy(),
        directions=directions,
        notes=notes + _failures(values, outcomes) + _sentences(margins.abstaining),
        timings=stages.timings,
        low=data.low,
        high=data.high,
        classes=data.classes,
    )


def _fit_to_data(settings: AuditSettings, data: Dataset) -> tuple[AuditSettings, list[str]]:
    notes = [data.note] if data.note else []
    available = len(data.x_test)
    if available < settings.inputs:
        notes.append(f"{settings.inputs} inputs were asked for, the test set holds {available}.")
    return replace(settings, inputs=min(settings.inputs, available)), notes


def _inputs(vae: VAE, x: Tensor) -> Tensor:
    """``x`` on the model's device and in its dtype."""
    like = next(vae.parameters(), x)
    if like.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"an audit takes float32 or float64 models, got {like.dtype}; model.float()"
        )
    return x.to(like)


def _classifier(job: Job, data: Dataset, notes: list[str]) -> LatentClassifier | None:
    """The latent classifier behind every accuracy, or None and a note that says why."""
    y = data.y_train
    if y is None or data.y_test is None:
        what, key = "The data", "y"
        if y is not None:
            what, key = "The test inputs", "y_test"
        elif data.y_test is not None:
            what = "The training inputs"
        notes.append(
            f"{what} came without labels, so there is no classifier and no accuracy: "
            f"those columns are absent. An .npz file with a key {key} adds them, or --labels."
        )
        return None
    if len(y.unique()) < 2:
        notes.append("All labels are the same, so the accuracy columns are absent.")
        return None
    return stage.classifier(job, data)


def _clean_values(
    job: Job, defended: Defended, reference: Tensor, classifier: LatentClassifier | None
) -> Values:
    again = stage.sample_reconstruction(job.vae, job.x, job.settings.seed, stage.ATTACKED)
    with torch.no_grad():
        centre = by_blocks(lambda rows, _: job.vae.reconstruct(job.x[rows]), job.x)
    values = {
        "index": torch.arange(len(job.x), device="cpu"),
        "reconstruction_error": (centre - job.x).flatten(1).double().norm(dim=1),
        f"{job.measure}_resampled": job.compared(reference, again),
        f"clean_{job.measure}_defended": job.compared(reference, defended.reconstruction),
        "clean_defence_accept_rate": defended.accept_rate,
        "clean_defence_divergent": defended.divergent,
    }
    if classifier is not None:
        values["predicted"] = classifier.predict(_means(job.vae, job.x))
        values["clean_predicted_defended"] = classifier.predict(defended.z.flatten(1))
    return _arrays(values)


def _outcomes(
    job: Job,
    attacks: list[Attacked],
    defences: list[Defended],
    reference: Tensor,
    classifier: LatentClassifier | None,
) -> list[Outcome]:
    outcomes = []
    title = "compare  reconstructions"
    with job.stages.stage(title, len(attacks) * len(job.x)) as advance:
        for attacked, defended in zip(attacks, defences, strict=True):
            outcomes.append(_outcome(job, attacked, defended, reference, classifier))
            advance(len(job.x))
    return outcomes


def _outcome(
    job: Job,
    attacked: Attacked,
    defended: Defended,
    reference: Tensor,
    classifier: LatentClassifier | None,
) -> Outcome:
    result = attacked.result
    sampled = stage.sample_reconstruction(job.vae, result.x_adv, job.settings.seed, stage.ATTACKED)
    tensors = {
        "objective": result.objective,
        "perturbation_norm": result.perturbation_norm,
        **stage.compare(job, result.x_adv, sampled, defended.reconstruction, reference),
        "defence_accept_rate": defended.accept_rate,
        "defence_divergent": defended.divergent,
    }
    if classifier is not None:
        tensors["predicted"] = classifier.predict(_means(job.vae, result.x_adv))
        tensors["predicted_defended"] = classifier.predict(defended.z.flatten(1))
    values = _arrays(tensors)
    values["failed"] = _any_nan(values) | (result.failed | defended.failed).cpu().numpy()
    return Outcome(attacked.plan, result, sampled, defended.reconstruction, values)


@torch.no_grad()
def _means(vae: VAE, x: Tensor) -> Tensor:
    return by_blocks(lambda rows, _: vae.encode(x[rows])[0], x)


def _msssim_sizes(x: Tensor) -> str:
    sizes = metrics.msssim(x[:1], x[:1])
    return f"window {sizes.window}, {sizes.scales} scale{'s' if sizes.scales > 1 else ''}"


def _arrays(tensors: dict[str, Tensor]) -> Values:
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def _any_nan(values: Values) -> np.ndarray:
    return np.any([np.isnan(column) for column in values.values()], axis=0)


def _sentences(text: str) -> list[str]:
    return [f"{text}."] if text else []


def _failures(values: Values, outcomes: list[Outcome]) -> list[str]:
    """A note for every part with rows that failed, and the attacks' own reasons."""
    counts = {"clean inputs": values["failed"].sum()}
    counts.update({o.plan.title: o.values["failed"].sum() for o in outcomes})
    return [
        f"{count} of {len(values['failed'])} rows failed ({name}): some result is not finite. "
        "They are marked in results.parquet and are in no aggregate."
        for name, count in counts.items()
        if count
    ] + [f"{o.plan.title}: {fault}." for o in outcomes for fault in faults(o.result)]
