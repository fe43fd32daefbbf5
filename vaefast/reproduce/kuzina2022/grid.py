"""The grid of a model: every attack with and without the defence, computed or read."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from vaefast import attacks, hmc, metrics
from vaefast.audit import Stages
from vaefast.hmc.start import posterior_draws
from vaefast.philox import seed_apart
from vaefast.reproduce.kuzina2022.cells import (
    AIMS,
    CLEAN,
    HMC,
    NONE,
    OBLIVIOUS,
    PUBLISHED,
    Aim,
    Cell,
    kept_of,
)
from vaefast.reproduce.kuzina2022.search import search, search_undefended
from vaefast.reproduce.kuzina2022.settings import Settings
from vaefast.reproduce.kuzina2022.subject import Subject
from vaefast.reproduce.store import Part, Store

__all__ = ["Grid"]

OWN, CHOICE, REPORT = 0, 4, 5  # draws of their own, by seed_apart; 1 to 3 are the searches'
ROWS = 64  # chains of a call, between two moves of a progress bar


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
        """Without an attack, then of each radius the published attack and those of each aim."""
        clean = _repeated(self.subject.x, self.settings.restarts)
        found = [
            self._cell(0.0, CLEAN, NONE, lambda: self._sampled(clean)),
            self._cell(0.0, CLEAN, HMC, lambda: self._defended(clean, "clean inputs")),
        ]
        for radius in self.settings.radii:
            found += self._attacked(radius, found[1].facts["step_size"])
        return found

    def published(self, radius: float) -> Tensor:
        """Adversarial inputs of the published attack [B, R, C, H, W], all of its restarts."""
        s = self.settings
        options: dict[str, Any] = {"eps": radius, "preset": "kuzina2022", "steps": s.attack_steps}
        options |= {"restarts": s.restarts, "seed": s.seed}

        def compute(done: Callable[[int], None]) -> Tensor:
            found = attacks.latent(self.subject.vae, self.subject.x, **options)
            done(s.references)
            return found.x_adv

        title = f"attack   {self.subject.training.title}, {radius:g}"
        return self._points(f"attacked-{radius:g}", title, s.attack_steps * s.restarts, compute)

    def _attacked(self, radius: float, step_size: float) -> list[Cell]:
        """All cells of one radius."""
        x_adv, title = self.published(radius), f"published attack, {radius:g}"
        none = self._cell(radius, PUBLISHED, NONE, lambda: self._sampled(x_adv))
        hmc = self._cell(radius, PUBLISHED, HMC, lambda: self._defended(x_adv, title))
        found = [none, hmc]
        for aim in AIMS:
            found += self._aimed(aim, radius, x_adv, (none, hmc), step_size)
        return found

    def _aimed(
        self, aim: Aim, radius: float, x_adv: Tensor, cells: tuple[Cell, Cell], step_size: float
    ) -> list[Cell]:
        """Of each reference one point of each attack, that differ in aim and in what they know.

        The strongest of the published attack's, whose aim is another; that of an attack with this
        aim which knows nothing of the defence; and the adaptive one. All are reported on the same
        draws, which none of them was chosen on.
        """
        sampled, known = (_strongest(aim, x_adv, cell) for cell in cells)
        oblivious = self._oblivious(aim, radius)

        def undefended(point: Tensor) -> Part:
            return self._sampled(_repeated(point, self.settings.restarts), REPORT)

        def defended(point: Tensor, attack: str) -> Part:
            return self._reported(point, f"{attack} {aim.noun}, {radius:g}")

        points = {PUBLISHED: known, OBLIVIOUS: oblivious}
        candidates = {"candidates": [*self.settings.gradients, *points]}
        return [
            self._cell(radius, aim.strongest, NONE, lambda: undefended(sampled)),
            self._cell(radius, aim.strongest, HMC, lambda: defended(known, "strongest")),
            self._cell(radius, aim.oblivious, NONE, lambda: undefended(oblivious)),
            self._cell(radius, aim.oblivious, HMC, lambda: defended(oblivious, OBLIVIOUS)),
            self._cell(
                radius,
                aim.adaptive,
                HMC,
                lambda: self._adaptive(aim, radius, points, step_size),
                candidates,
            ),
        ]

    def _reported(self, point: Tensor, title: str) -> Part:
        """What the defence leaves of a point of each reference, on draws that chose none."""
        return self._defended(_repeated(point, self.settings.restarts), title, REPORT)

    def _cell(
        self,
        radius: float,
        attack: str,
        defence: str,
        compute: Callable[[], Part],
        made_of: Mapping[str, Any] = MappingProxyType({}),
    ) -> Cell:
        """A cell; a finished one is read where its facts hold what it is made of."""
        name = f"{self.subject.name}/{attack}-{radius:g}-{defence}"
        part = self.store.read(name)
        if part is None or any(part.facts.get(key) != made_of[key] for key in made_of):
            start = time.perf_counter()
            tensors, facts = compute()
            facts |= {"seconds": time.perf_counter() - start, **made_of}
            part = self.store.write(name, tensors, facts)
        tensors = dict(part.tensors)
        msssim, same, sampled = (tensors.pop(k).numpy() for k in ("msssim", "same", "sampled"))
        which = self.subject.name, radius, attack, defence
        return Cell(*which, msssim, same, sampled, part.facts, tensors)

    def _adaptive(
        self, aim: Aim, radius: float, others: Mapping[str, Tensor], step_size: float
    ) -> Part:
        """Of each reference the point that the defence keeps least of, on draws of their own.

        Candidates are what each gradient finds through the defence, and the points [B, C, H, W]
        of ``others``, which do not know it. Which is strongest is decided on a second set of
        draws; what is reported is a third.
        """
        gradients = self.settings.gradients
        found = {name: self._searched(aim, radius, name, step_size) for name in gradients}
        points = {**found, **others}
        scores = []
        for name, point in points.items():
            title = f"{name} for {aim.noun}, {radius:g}"
            judged = _repeated(point, max(1, self.settings.restarts // 2))
            tensors = self._defended(judged, title, CHOICE).tensors
            means = (tensors[key].double().nanmean(1) for key in ("msssim", "same"))
            scores.append(kept_of(aim.metric, *means))
        which = torch.stack(scores).argmin(0)  # [B]
        rows = torch.arange(len(which), device="cpu")
        chosen = torch.stack([*points.values()])[which, rows]
        part = self._reported(chosen, f"adaptive {aim.noun}, {radius:g}")
        part.facts["found_by"] = [[*points][k] for k in which.tolist()]
        return part

    def _oblivious(self, aim: Aim, radius: float) -> Tensor:
        """What the attack with this aim on the model alone finds, [B, C, H, W]."""

        def compute(done: Callable[[int], None]) -> Tensor:
            return search_undefended(self.subject, self.settings, aim, radius, done)

        name = f"searched-{aim.noun}-{radius:g}-{OBLIVIOUS}"
        title = f"attack   {self.subject.training.title}, at {aim.noun}, {radius:g}"
        work = self.settings.attack_steps * self.settings.restarts
        return self._points(name, title, work, compute)

    def _searched(self, aim: Aim, radius: float, gradient: str, step_size: float) -> Tensor:
        """What one gradient finds through shorter chains of the defence, [B, C, H, W]."""
        s = self.settings

        def compute(done: Callable[[int], None]) -> Tensor:
            return search(self.subject, s, aim, radius, gradient, step_size, done)

        name = f"searched-{aim.noun}-{radius:g}-{gradient}"
        title = f"adapt    {self.subject.training.title}, {gradient} at {aim.noun}, {radius:g}"
        return self._points(name, title, s.adaptive_steps, compute)

    def _points(
        self, name: str, title: str, work: int, compute: Callable[[Callable[[int], None]], Tensor]
    ) -> Tensor:
        """Of a search, computed or read; ``work`` steps a reference."""
        name = f"{self.subject.name}/{name}"
        part = self.store.read(name)
        if part is None:
            with self.stages.stage(title, self.settings.references, "attack steps", work) as done:
                found = compute(done)
            part = self.store.write(name, {"x_adv": found}, {})
        return part.tensors["x_adv"]

    def _sampled(self, x_adv: Tensor, draws: int = OWN) -> Part:
        """No defence: one sample of q(z|x_adv) is decoded, μ(x_adv) classified."""
        rows, seed = x_adv.flatten(0, 1), seed_apart(self.settings.seed, draws)
        index = torch.arange(len(rows), device="cpu")
        with torch.no_grad():
            mean, std = self.subject.vae.posterior(rows)
            z = posterior_draws(mean, std, 1, seed=seed, index=index)
            images = self.subject.vae.g(z)
        part = self._part(x_adv, images, mean, {})
        part.tensors["sampled"] = self._same(z, x_adv.shape[1])[0]
        return part

    def _defended(self, x_adv: Tensor, title: str, draws: int = OWN) -> Part:
        """The published defence: the last state of a chain is decoded and classified."""
        s, restarts = self.settings, x_adv.shape[1]
        rows, seed = x_adv.flatten(0, 1), seed_apart(s.seed, draws)
        options: dict[str, Any] = {"schedule": "kuzina2022", "steps": s.transitions}
        options |= {"step_size": s.step_size, "seed": seed, "group": restarts}
        at_once = max(1, ROWS // restarts) * restarts  # whole references
        parts, work = [], (s.transitions + s.transitions // 2) * 20
        name = f"defend   {self.subject.training.title}, {title}"
        with self.stages.stage(name, len(rows), "gradients", work) as advance:
            for index in torch.arange(len(rows), device="cpu").split(at_once):
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
        same, predicted = self._same(z, restarts)
        first = images.unflatten(0, (-1, restarts))[:, 0]
        tensors = {
            "msssim": similarity.unflatten(0, (-1, restarts)),
            "same": same,
            "sampled": same.clone(),
            "input": x_adv[:, 0],
            "reconstruction": first,
            "predicted": predicted[:, 0],
        }
        return Part(tensors, facts)

    def _same(self, z: Tensor, restarts: int) -> tuple[Tensor, Tensor]:
        """1 where z has the reference's class, NaN of failed; and the classes; [B, R] each."""
        predicted = self.subject.classifier.predict(z).unflatten(0, (-1, restarts))
        same = (predicted == self.subject.predicted[:, None]).double()
        same[predicted < 0] = torch.nan
        return same, predicted


def _strongest(aim: Aim, x_adv: Tensor, cell: Cell) -> Tensor:
    """Of each reference the restart that leaves least in a cell, [B, C, H, W]."""
    kept = kept_of(aim.metric, torch.from_numpy(cell.msssim), torch.from_numpy(cell.same))
    return x_adv[torch.arange(len(x_adv), device="cpu"), kept.argmin(1)]


def _repeated(point: Tensor, times: int) -> Tensor:
    """[B, C, H, W] as one row for each of some chains, [B, R, C, H, W]."""
    return point[:, None].expand(-1, times, -1, -1, -1)
