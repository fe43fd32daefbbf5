"""Which points the grid takes for the strongest, and on which draws it says so."""

import numpy as np
import pytest
import torch

from vaefast.reproduce.kuzina2022.cells import AIMS, Cell
from vaefast.reproduce.kuzina2022.grid import CHOICE, REPORT, Grid, _strongest
from vaefast.reproduce.kuzina2022.settings import Settings
from vaefast.reproduce.store import Part

IMAGE, CLASS = AIMS
LEFT = {"chain": 0.5, "posterior": 0.3, "published": 0.4}  # of the image, on the draws of a choice


def test_the_strongest_restart_leaves_least_of_what_is_aimed_at():
    x_adv = torch.arange(6.0).reshape(2, 3, 1, 1, 1)
    msssim = np.array([[0.3, 0.1, 0.2], [0.2, np.nan, 0.4]])
    same = np.array([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    cell = Cell("vae", 0.1, "published", "hmc", msssim, same, same, {}, {})
    assert _strongest(IMAGE, x_adv, cell).flatten().tolist() == [1.0, 3.0]
    assert _strongest(CLASS, x_adv, cell).flatten().tolist() == [2.0, 5.0]  # of two, by the image


@pytest.mark.parametrize("aim", AIMS)
def test_the_choice_and_the_report_have_draws_of_their_own(aim, monkeypatch):
    settings = Settings("made-up", references=2, restarts=4)
    grid, calls = Grid(None, settings, None, None), []
    points = {name: torch.full((2, 1, 1, 1), left) for name, left in LEFT.items()}

    def defended(self, x_adv, title, draws=0):
        calls.append((draws, x_adv.shape[1]))
        left = x_adv.flatten(2).mean(2)
        return Part({"msssim": left, "same": left}, {})

    monkeypatch.setattr(Grid, "_defended", defended)
    monkeypatch.setattr(Grid, "_searched", lambda self, aim, radius, name, step: points[name])
    part = grid._adaptive(aim, 0.1, points["published"], 0.1)
    assert part.facts["found_by"] == ["posterior", "posterior"]
    torch.testing.assert_close(part.tensors["msssim"], torch.full((2, 4), 0.3))
    assert calls == [(CHOICE, 2)] * 3 + [(REPORT, 4)]
