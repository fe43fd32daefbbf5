"""Which points the grid takes for the strongest, and on which draws it says so."""

import numpy as np
import pytest
import torch

from vaefast.attacks import AttackResult
from vaefast.reproduce.kuzina2022.cells import AIMS, Cell
from vaefast.reproduce.kuzina2022.grid import CHOICE, REPORT, Grid, _strongest
from vaefast.reproduce.kuzina2022.search import search, search_undefended
from vaefast.reproduce.kuzina2022.settings import Settings, parse_model
from vaefast.reproduce.kuzina2022.subject import Subject
from vaefast.reproduce.store import Part, Store

IMAGE, CLASS = AIMS
LEFT = {"chain": 0.5, "posterior": 0.3, "published": 0.4, "oblivious": 0.45}  # of the image


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
    others = {name: points[name] for name in ("published", "oblivious")}
    part = grid._adaptive(aim, 0.1, others, 0.1)
    assert part.facts["found_by"] == ["posterior", "posterior"]
    torch.testing.assert_close(part.tensors["msssim"], torch.full((2, 4), 0.3))
    assert calls == [(CHOICE, 2)] * 4 + [(REPORT, 4)]


def test_an_adaptive_cell_of_other_candidates_is_computed_again(tmp_path):
    """A cell is read where it is made of the same; one that does not say so is not."""
    settings, seen = Settings("made-up", references=2, restarts=4), []
    tensors = {key: torch.full((2, 4), 0.5) for key in ("msssim", "same", "sampled")}

    subject = Subject(parse_model("vae"), *[None] * 5, 0.0)

    def compute():
        seen.append(1)
        return Part(tensors, {})

    store = Store(tmp_path, settings.record())
    grid = Grid(subject, settings, store, None)
    for made_of in ({}, {"candidates": ["chain"]}, {"candidates": ["chain"]}, {"candidates": []}):
        grid._cell(0.1, "adaptive-image", "hmc", compute, made_of)
    assert len(seen) == 3


@pytest.mark.parametrize("aim", AIMS)
def test_the_oblivious_attack_never_sees_the_defence(aim, monkeypatch):
    """Its own objective chooses among its restarts; the aim is that of the adaptive attack."""
    calls = []

    def attack(vae, x, *, index, **options):
        calls.append(options)
        return AttackResult(x + 0.1, *[torch.zeros(len(x))] * 4)

    name = "max_damage" if aim is IMAGE else "latent"
    monkeypatch.setattr(f"vaefast.attacks.{name}", attack)
    settings = Settings("made-up", references=2, restarts=4)
    x, reader = torch.zeros(2, 1, 8, 8), object()
    subject = Subject(parse_model("vae"), None, reader, x, x, torch.zeros(2), 0.0)
    found = search_undefended(subject, settings, aim, 0.2, lambda count: None)
    search(subject, settings, aim, 0.2, "chain", 0.1, lambda count: None)
    assert torch.equal(found, x + 0.1)
    alone, through = calls
    known = {"through_defence", "gradient", "steps"}
    assert known - {*alone} == {"through_defence", "gradient"}
    assert (alone["steps"], alone["restarts"]) == (settings.attack_steps, 4)
    left = {key: value for key, value in alone.items() if key not in {*known, "restarts"}}
    assert left == {key: value for key, value in through.items() if key not in known}


def test_each_cell_of_an_aim_has_the_point_of_its_attack(tmp_path, monkeypatch):
    """The oblivious point is one for both defences; all are candidates of the adaptive attack."""
    settings = Settings("made-up", references=2, restarts=2)
    subject = Subject(parse_model("vae"), *[None] * 5, 0.0)
    grid = Grid(subject, settings, Store(tmp_path, settings.record()), None)
    x_adv = torch.tensor([[0.1, 0.2]] * 2).reshape(2, 2, 1, 1, 1)
    kept = {"none": np.array([[0.0, 1.0]] * 2), "hmc": np.array([[1.0, 0.0]] * 2)}
    cells = [Cell("vae", 0.1, "published", d, v, v, v, {}, {}) for d, v in kept.items()]

    def part(point, draws, **facts):
        assert draws == REPORT
        tensor = point.flatten(2).mean(2) if point.ndim == 5 else point
        return Part(dict.fromkeys(("msssim", "same", "sampled"), tensor), facts)

    def adaptive(self, aim, radius, others, step_size):
        assert step_size == 0.5
        return part(torch.stack([p.flatten() for p in others.values()], 1), REPORT, of=[*others])

    monkeypatch.setattr(Grid, "_oblivious", lambda *_: torch.full((2, 1, 1, 1), 0.3))
    monkeypatch.setattr(Grid, "_sampled", lambda self, point, draws: part(point, draws))
    monkeypatch.setattr(Grid, "_defended", lambda self, point, title, draws: part(point, draws))
    monkeypatch.setattr(Grid, "_adaptive", adaptive)
    found = grid._aimed(IMAGE, 0.1, x_adv, tuple(cells), 0.5)
    assert [(cell.attack, cell.defence, cell.msssim[0].tolist()) for cell in found] == [
        ("strongest-image", "none", pytest.approx([0.1, 0.1])),
        ("strongest-image", "hmc", pytest.approx([0.2, 0.2])),
        ("oblivious-image", "none", pytest.approx([0.3, 0.3])),
        ("oblivious-image", "hmc", pytest.approx([0.3, 0.3])),
        ("adaptive-image", "hmc", pytest.approx([0.2, 0.3])),
    ]
    assert found[-1].facts["candidates"] == ["chain", "posterior", "published", "oblivious"]
