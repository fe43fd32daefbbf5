"""The whole of a reproduction: every model of the grid, every cell, kept as it is finished."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vaefast.audit import Stages
from vaefast.data import Dataset
from vaefast.reproduce.inputs import check_count, check_images, contents
from vaefast.reproduce.kuzina2022.bound import Bound, bound_of
from vaefast.reproduce.kuzina2022.cells import Cell
from vaefast.reproduce.kuzina2022.grid import Grid
from vaefast.reproduce.kuzina2022.settings import Settings
from vaefast.reproduce.kuzina2022.subject import Subject, choose_references, prepare_subject
from vaefast.reproduce.store import Store, versioned

__all__ = ["Reproduction", "open_store", "run"]


@dataclass(frozen=True)
class Reproduction:
    """Everything that the table and the page show.

    Args:
        settings: its sizes.
        data: name of the data set.
        classes: names of its classes, empty where they are numbers.
        subjects: the models, in the order of the settings.
        cells: all of them, model by model.
        bound: of the first model; None where none was asked for.
    """

    settings: Settings
    data: str
    classes: tuple[str, ...]
    subjects: list[Subject]
    cells: list[Cell]
    bound: Bound | None = None

    def cell(self, model: str, radius: float, attack: str, defence: str) -> Cell:
        wanted = (model, radius, attack, defence)
        return next(c for c in self.cells if (c.model, c.radius, c.attack, c.defence) == wanted)


def open_store(folder: Path, data: Dataset, settings: Settings) -> Store:
    """The folder of a run of these settings on these data, with these versions.

    Raises:
        ValueError: it is of another run, or the data are none that a model of the grid takes.
        OSError: it cannot be written.
    """
    check_data(data, settings)
    seen = [data.x_train[: settings.train_inputs], data.x_test[:1024]]
    seen += [y for y in (data.y_train, data.y_test) if y is not None]
    return Store(folder, versioned({**settings.record(), "contents": contents(*seen)}))


def check_data(data: Dataset, settings: Settings) -> None:
    """Images in [0, 1] with labels, as many as the settings want.

    Raises:
        ValueError: others.
    """
    check_images(data, settings.data)
    if data.y_train is None or data.y_test is None:
        raise ValueError(f"--data {settings.data} has no labels; the classifier needs them")
    check_count(data, settings.data, settings.train_inputs)
    choose_references(data.y_test, settings.references, settings.seed)


def run(data: Dataset, settings: Settings, store: Store, stages: Stages) -> Reproduction:
    """Train, attack and defend what is not finished yet, and gather what is."""
    subjects: list[Subject] = []
    cells, bound = [], None
    for name in settings.models:
        subject = prepare_subject(name, data, settings, store, stages)
        grid = Grid(subject, settings, store, stages)
        cells += grid.cells()
        bound = bound if subjects else bound_of(grid, settings, stages)
        subjects.append(subject)
    return Reproduction(settings, data.name, data.classes, subjects, cells, bound)
