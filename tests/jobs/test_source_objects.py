"""Objects of two methods, torch's data sets, and functions that make them."""

import numpy as np
import pytest
import torch
from source_files import FLOATS, LABELS

from vaefast.jobs.sources import Rows, open_source


class Ranges:
    """Two methods; row 4 raises, row 6 is not finite."""

    def __init__(self, kind):
        self.kind = kind

    def __len__(self):
        return 11

    def read(self, start, stop):
        if start <= 4 < stop:
            raise KeyError("row 4")
        x = torch.from_numpy(FLOATS[start:stop]).clone()
        if start <= 6 < stop:
            x[6 - start, 1] = torch.nan
        if self.kind == "pair":
            return x, LABELS[start:stop]
        if self.kind == "rows":
            index = torch.arange(start, stop)
            return Rows(x, index, torch.from_numpy(LABELS[start:stop]), {})
        return x


class Items:
    """As torch's map-style data sets."""

    def __len__(self):
        return 11

    def __getitem__(self, k):
        if k == 4:
            raise KeyError("row 4")
        return torch.from_numpy(FLOATS[k]), int(LABELS[k])


@pytest.mark.parametrize("kind", ["x", "pair", "rows"])
def test_an_object_of_two_methods(kind):
    rows = open_source(Ranges(kind)).read(2, 9)
    assert rows.failed == {4: "KeyError: 'row 4'", 6: "1 of 6 values is NaN"}
    assert torch.equal(rows.x, torch.from_numpy(FLOATS[[2, 3, 5, 7, 8]]))
    assert (rows.y is None) == (kind == "x")
    if kind != "x":
        assert rows.y.tolist() == LABELS[[2, 3, 5, 7, 8]].tolist()


def test_items_of_a_torch_data_set():
    rows = open_source(Items()).read(2, 9)
    assert rows.failed == {4: "KeyError: 'row 4'"}
    assert torch.equal(rows.x, torch.from_numpy(FLOATS[[2, 3, 5, 6, 7, 8]]))
    assert rows.y.tolist() == LABELS[[2, 3, 5, 6, 7, 8]].tolist()


def test_rows_that_an_object_forgets_fail():
    class Forgetful(Ranges):
        def read(self, start, stop):
            kept = np.arange(start, stop) % 10
            return Rows(torch.from_numpy(FLOATS[kept]), torch.from_numpy(kept), None, {})

    rows = open_source(Forgetful("rows")).read(8, 11)
    assert rows.index.tolist() == [8, 9]
    assert "must give each of its rows once" in rows.failed[10]


def test_a_fingerprint_of_an_object_is_its_own_or_of_sampled_rows():
    class Changed(Ranges):
        def read(self, start, stop):
            return super().read(start, stop) * (0.5 if start == 10 else 1.0)

    class Named(Ranges):
        fingerprint = "v1"

    Changed.__qualname__ = Named.__qualname__ = "Ranges"
    plain, changed, named = (
        open_source(kind("x")).fingerprint for kind in (Ranges, Changed, Named)
    )
    assert len({plain, changed, named}) == 3
    assert plain == open_source(Ranges("x")).fingerprint


MADE = """
import numpy as np

def make_rows():
    return np.full((5, 3), 0.25)

class Ranges:
    def __len__(self):
        return 5

    def read(self, start, stop):
        return make_rows()[start:stop]
"""


@pytest.mark.parametrize("name", ["make_rows", "Ranges"])
def test_a_function_of_a_file_makes_the_object(name, tmp_path):
    (tmp_path / "mine.py").write_text(MADE)
    source = open_source(f"{tmp_path}/mine.py:{name}")
    again = open_source(source.description)
    assert again.read(1, 2).x.tolist() == [[0.25] * 3]
    assert again.fingerprint == source.fingerprint
    with pytest.raises(ValueError, match="other failed with AttributeError"):
        open_source(f"{tmp_path}/mine.py:other")
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        open_source(f"{tmp_path}/yours.py:make_rows")
