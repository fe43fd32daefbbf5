"""The cells of the grid: an attack, a defence, and what they leave of each reference."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaefast import attacks, hmc, metrics
from vaefast.audit import Stages
from vaefast.audit.stages import ATTACKED, sample_reconstruction
from vaefast.reproduce.settings import Settings
from vaefast.reproduce.store import Part, Store
from vaefast.reproduce.subject import Subject

__all__ = ["ADAPTIVE", "CLEAN", "HMC", "NONE", "PUBLISHED", "Cell", "Grid"]

CLEAN, PUBLISHED, ADAPTIVE = "none", "published", "adaptive"  # attacks
NONE, HMC = "none", "hmc"  # defences
# added to the seed, for draws of their own: the adaptive search, its choice, and its report
SEARCH, FRESH, CHOICE = 1, 2, 3
ROWS = 64  # chains of a call, between two moves of a progress bar
AT_ONCE = 16  # references of an attack through the defence


@dataclass(frozen=True)
class Cell:
    """What an attack and a defence leave of the references.

    Args:
        model: name.
        radius: ℓ∞, pixel scale; 0 without an attack.
        attack: ``"none"``, ``"published"`` or ``"adaptive"``.
        defence: ``"none"`` or ``"hmc"``.
        msssim: [B, R] float64, with the reference's reconstruction.
        same: [B, R] float64, 1 where the class predicted for the reference stays; NaN of failed.
        facts: plain values.
        pictures: [B, C, H, W] by name, of the first of the R.
    """

    model: str
    radius: float
    attack: str
    defence: str
    msssim: np.ndarray
    same: np.ndarray
    facts: dict[str, Any]
    pictures: dict[str, Tensor]

    @property
    def failed(self) -> int:
        """How many of the B·R are not finite."""
        return int((np.isnan(self.msssim) | np.isnan(self.same)).sum())

    def per_reference(self, metric: str) -> np.ndarray:
        """Mean over the restarts [B]; NaN where all failed."""
        values: np.ndarray = getattr(self, metric)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing
            return np.nanmean(values, axis=1)


class Grid:
    """Computes the cells of a model, or reads those that are finished.

    Args:
        subject: the model and its references.
        settings: their sizes.
        store: where finished cells lie.
        stages: shows the progress.
    """

    def __init__(self, subject: Subject, settings: Settings, store: Store, stages: Stages) -> None:
        self.subject, self.settings, self.store, self.stages = subject, settings, store, stages

    def cells(self) -> list[Cell]:
        """Without an attack, then of each radius: no defence, HMC, HMC attacked adaptively."""
        found = [
            self._cell(0.0, CLEAN, NONE, lambda: self._sampled(self._clean())),
            self._cell(0.0, CLEAN, HMC, lambda: self._defended(self._clean(), "clean inputs")),
        ]
        for radius in self.settings.radii:
            found += self._attacked(radius, found[1].facts["step_size"])
        return found

    def _attacked(self, radius: float, step_size: float) -> list[Cell]:
        """No defence, HMC, and HMC attacked adaptively, at one radius."""
        x_adv, title = self._published(radius), f"published attack, {radius:g}"
        none = self._cell(radius, PUBLISHED, NONE, lambda: self._sampled(x_adv))
        hmc = self._cell(radius, PUBLISHED, HMC, lambda: self._defended(x_adv, title))
        adaptive = self._cell(
            radius, ADAPTIVE, HMC, lambda: self._adaptive(radius, x_adv, hmc, step_size)
        )
        return [none, hmc, adaptive]

    def _cell(self, radius: float, attack: str, defence: str, compute: Callable[[], Part]) -> Cell:
        name = f"{self.subject.name}/{attack}-{radius:g}-{defence}"
        part = self.store.read(name)
        if part is None:
            start = time.perf_counter()
            tensors, facts = compute()
            facts["seconds"] = time.perf_counter() - start
            part = self.store.write(name, tensors, facts)
        tensors = dict(part.tensors)
        msssim, same = (tensors.pop(key).numpy() for key in ("msssim", "same"))
        return Cell(self.subject.name, radius, attack, defence, msssim, same, part.facts, tensors)

    def _clean(self) -> Tensor:
        """[B, R, C, H, W]"""
        return self.subject.x[:, None].expand(-1, self.settings.restarts, -1, -1, -1)

    def _published(self, radius: float) -> Tensor:
        """Adversarial inputs of the published attack [B, R, C, H, W], all of its restarts."""
        s, name = self.settings, f"{self.subject.name}/attacked-{radius:g}"
        part = self.store.read(name)
        if part is None:
            work = s.attack_steps * s.restarts
            title = f"attack   {self.subject.training.title}, {radius:g}"
            with self.stages.stage(title, s.references, "attack steps", work):
                result = attacks.latent(
                    self.subject.vae,
                    self.subject.x,
                    eps=radius,
                    preset="kuzina2022",
                    steps=s.attack_steps,
                    restarts=s.restarts,
                    seed=s.seed,
                )
            part = self.store.write(name, {"x_adv": result.x_adv}, {})
        return part.tensors["x_adv"]

    def _sampled(self, x_adv: Tensor) -> Part:
        """No defence: one sample of q(z|x_adv) is decoded, μ(x_adv) classified."""
        rows = x_adv.flatten(0, 1)
        images = sample_reconstruction(self.subject.vae, rows, self.settings.seed, ATTACKED)
        with torch.no_grad():
            mean = self.subject.vae.encode(rows)[0]
        return self._part(x_adv, images, mean, {})

    def _defended(self, x_adv: Tensor, title: str, *, fresh: int = 0) -> Part:
        """The published defence: the last state of a chain is decoded and classified."""
        s, restarts = self.settings, x_adv.shape[1]
        rows = x_adv.flatten(0, 1)
        options: dict[str, Any] = {"schedule": "kuzina2022", "steps": s.transitions}
        options |= {"step_size": s.step_size, "seed": s.seed + fresh, "group": restarts}
        at_once = max(1, ROWS // restarts) * restarts  # whole references
        parts, work = [], (s.transitions + s.transitions // 2) * 20
        name = f"defend   {self.subject.training.title}, {title}"
        with self.stages.stage(name, len(rows), "gradients", work) as advance:
            for index in torch.arange(len(rows)).split(at_once):
                parts.append(hmc.defend(self.subject.vae, rows[index], index=index, **options))
                advance(len(index))
        z, images = (
            torch.cat([getattr(part, key)[:, 0] for part in parts])
            for key in ("z", "reconstruction")
        )
        rate, size = (
            torch.cat([getattr(part.result, key).flatten() for part in parts])
            for key in ("accept_rate", "step_size")
        )
        facts = {"accept_rate": rate.nanmean().item(), "step_size": size.nanmedian().item()}
        return self._part(x_adv, images, z, facts)

    def _part(self, x_adv: Tensor, images: Tensor, z: Tensor, facts: dict[str, Any]) -> Part:
        subject, restarts = self.subject, x_adv.shape[1]
        reference = subject.reconstruction.repeat_interleave(restarts, 0)
        similarity = metrics.msssim(reference, images, variant="kuzina2022").value
        predicted = subject.classifier.predict(z).unflatten(0, (-1, restarts))
        same = (predicted == subject.predicted[:, None]).double()
        same[predicted < 0] = torch.nan
        first = images.unflatten(0, (-1, restarts))[:, 0]
        tensors = {
            "msssim": similarity.unflatten(0, (-1, restarts)),
            "same": same,
            "input": x_adv[:, 0],
            "reconstruction": first,
            "predicted": predicted[:, 0],
        }
        return Part(tensors, facts)

    def _adaptive(self, radius: float, x_adv: Tensor, hmc: Cell, step_size: float) -> Part:
        """Of each reference the point that the defence keeps least of, on draws of their own.

        Candidates are what each gradient finds through the defence, and of the published attack's
        points the strongest on the draws of its own cell. Which candidate is strongest is decided
        on a second set of draws; what is reported is a third.
        """
        names = [*self.settings.gradients, "published"]
        strongest = torch.as_tensor(hmc.msssim).nan_to_num(torch.inf).argmin(1)
        rows = torch.arange(len(x_adv))
        points = [self._through(radius, name, step_size) for name in self.settings.gradients]
        points.append(x_adv[rows, strongest])
        scores = []
        for name, point in zip(names, points, strict=True):
            title = f"{name} for choice, {radius:g}"
            judged = self._defended(self._repeated(point), title, fresh=CHOICE)
            scores.append(judged.tensors["msssim"].nanmean(1))
        which = torch.stack(scores).nan_to_num(torch.inf).argmin(0)  # [B]
        chosen = torch.stack(points)[which, rows]
        title = f"adaptive attack, {radius:g}"
        part = self._defended(self._repeated(chosen), title, fresh=FRESH)
        part.facts["found_by"] = [names[k] for k in which.tolist()]
        part.facts["searched"] = {
            name: score.nanmean().item() for name, score in zip(names, scores, strict=True)
        }
        return part

    def _repeated(self, point: Tensor) -> Tensor:
        """[B, C, H, W] as one row for each of R chains."""
        return point[:, None].expand(-1, self.settings.restarts, -1, -1, -1)

    def _through(self, radius: float, gradient: str, step_size: float) -> Tensor:
        """What one gradient finds through shorter chains of the defence, [B, C, H, W]."""
        name = f"{self.subject.name}/searched-{radius:g}-{gradient}"
        part = self.store.read(name)
        if part is None:
            part = self.store.write(name, {"x_adv": self._search(radius, gradient, step_size)}, {})
        return part.tensors["x_adv"]

    def _search(self, radius: float, gradient: str, step_size: float) -> Tensor:
        s, subject = self.settings, self.subject
        surrogate: dict[str, Any] = {"steps": s.adaptive_transitions, "warmup": 0, "leapfrog": 20}
        surrogate |= {"step_size": step_size, "adapt": None, "jitter": 0.0}
        title = f"adapt    {subject.training.title}, {gradient}, {radius:g}"
        found = []
        with self.stages.stage(title, s.references, "attack steps", s.adaptive_steps) as advance:
            for index in torch.arange(len(subject.x)).split(AT_ONCE):
                result = attacks.max_damage(
                    subject.vae,
                    subject.x[index],
                    eps=radius,
                    norm="linf",
                    steps=s.adaptive_steps,
                    seed=s.seed + SEARCH,
                    index=index,
                    through_defence=surrogate,
                    gradient=gradient,
                )
                found.append(result.x_adv)
                advance(len(index))
        return torch.cat(found)
