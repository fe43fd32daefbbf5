"""A made-up reproduction, whose numbers are given, and the smallest real one."""

import numpy as np
import pytest
import torch

from vaefast.metrics import LatentClassifier
from vaefast.reproduce.kuzina2022.cells import Cell
from vaefast.reproduce.kuzina2022.run import Reproduction
from vaefast.reproduce.kuzina2022.settings import Settings, parse_model
from vaefast.reproduce.kuzina2022.subject import Subject

B, R = 4, 2
CHOICES = [("published", "none"), ("published", "hmc")]
for _aim in ("image", "class"):
    for _attack in ("strongest", "oblivious"):
        CHOICES += [(f"{_attack}-{_aim}", defence) for defence in ("none", "hmc")]
    CHOICES.append((f"adaptive-{_aim}", "hmc"))
NOISE = np.array([[0.01, -0.01], [-0.01, 0.01], [0.02, 0.0], [-0.02, 0.0]])


@pytest.fixture
def made_up():
    """A reproduction with these means of each cell, (attack, defence) -> (MSSSIM, accuracy)."""

    def make(means, *, models=("vae",), radii=(0.1, 0.2), spread=1.0, classes=()):
        x = torch.rand(B, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        clean = (("none", "none"), ("none", "hmc"))
        cells, subjects = [], []
        for model in models:
            plan = parse_model(model)
            classifier = LatentClassifier(torch.zeros(2, 3), torch.zeros(2), torch.arange(2), 0.9)
            predicted = torch.arange(B) % 2
            subjects.append(Subject(plan, None, classifier, x, x, predicted, 100.0))
            wanted = [(0.0, *choice) for choice in clean]
            wanted += [(radius, *choice) for radius in radii for choice in CHOICES]
            for radius, attack, defence in wanted:
                kind = attack.split("-")[0]
                known = "none" if kind == "none" else "published"
                given = means.get((kind, defence), means.get((known, defence)))
                msssim, same = given or (0.5, 0.5)
                facts = {"seconds": 1.0, "accept_rate": 0.9}
                if kind == "adaptive":
                    facts["found_by"] = ["chain"] * (B - 1) + ["published"]
                pictures = {"input": x, "reconstruction": x, "predicted": 1 - predicted}
                shifted = [mean + spread * NOISE * (attack == "none") for mean in (msssim, same)]
                cells.append(
                    Cell(
                        model, radius, attack, defence, *shifted, shifted[1].copy(), facts, pictures
                    )
                )
        settings = Settings("made-up", models=models, radii=radii, references=B, restarts=R)
        return Reproduction(settings, "made-up", classes, subjects, cells)

    return make
