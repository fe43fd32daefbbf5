"""Arrays: .npy files, known sets, and what a caller holds in memory."""

import numpy as np
import pytest
import torch
from source_files import FLOATS, LABELS, write_npy

from vaefast import data
from vaefast.data.dataset import Dataset
from vaefast.jobs.sources import open_source


def test_floats_keep_their_bits_and_poisoned_rows_fail_with_a_reason(tmp_path):
    x = FLOATS.copy()
    x[1, 2], x[3, :2], x[4, 0], x[6, 1], x[8, 0] = np.nan, np.inf, 1.5, -1e-6, 1 + 1e-7
    np.save(tmp_path / "x.npy", x)
    rows = open_source(tmp_path / "x.npy").read(0, 11)
    assert rows.failed == {
        1: "1 of 6 values is NaN",
        3: "2 of 6 values are infinite in float32",
        4: f"values from {x[4].min():.7g} to 1.5, outside [0, 1]",
    }
    assert rows.index.tolist() == [0, 2, 5, 6, 7, 8, 9, 10]
    assert torch.equal(rows.x, torch.from_numpy(x[rows.index.numpy()]).clamp(0, 1))
    assert rows.clipped == 2
    wide = open_source(tmp_path / "x.npy", box=(-np.inf, np.inf)).read(0, 11)
    assert sorted(wide.failed) == [1, 3]
    assert torch.equal(wide.x, torch.from_numpy(x[wide.index.numpy()]))


def test_a_double_that_overflows_is_infinite(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[0.5, 1e300]]))
    rows = open_source(tmp_path / "x.npy", box=(-np.inf, np.inf)).read(0, 1)
    assert rows.failed == {0: "1 of 2 values is infinite in float32"}
    assert rows.x.shape == (0, 2)


@pytest.mark.parametrize(("name", "box"), [("digits", (-1.0, 1.0)), ("mnist", (-1.0, 1.0))])
def test_known_sets_have_the_bits_of_the_data_module(name, box):
    try:
        found = data.load(name, low=box[0], high=box[1])
    except (FileNotFoundError, ImportError) as error:
        pytest.skip(str(error))
    splits = {"test": (found.x_test, found.y_test), "train": (found.x_train, found.y_train)}
    for split, (x, y) in splits.items():
        source = open_source(name, box=box, split=split)
        rows = source.read(100, 300)
        assert torch.equal(rows.x, x[100:300])
        assert torch.equal(rows.y, y[100:300])
        assert len(source) == len(x)
    assert open_source(source.description).fingerprint == source.fingerprint


def test_arrays_tensors_and_data_sets():
    x = torch.from_numpy(FLOATS)
    for value in (FLOATS, x, Dataset("mine", x[:2], None, x, None, "")):
        source = open_source(value)
        assert torch.equal(source.read(0, 11).x, x)
        assert len({source.fingerprint, open_source(value).fingerprint}) == 1
        with pytest.raises(ValueError, match="cannot be opened again; pass the object"):
            open_source(source.description)


def test_labels_of_text_and_of_a_mapped_file(tmp_path):
    spec, _ = write_npy(tmp_path)
    (tmp_path / "names.txt").write_text("\n".join("cab"[k] for k in LABELS))
    source = open_source(spec, labels=tmp_path / "names.txt")
    assert (source.classes, source.read(0, 3).y.tolist()) == (("a", "b", "c"), [2, 0, 1])
    mapped = open_source(spec, labels=tmp_path / "y.npy")
    assert isinstance(mapped.y, np.memmap)
    np.save(tmp_path / "short.npy", LABELS[:4])
    with pytest.raises(ValueError, match=r"must hold \[11\] labels"):
        open_source(spec, labels=tmp_path / "short.npy")


@pytest.mark.parametrize("array", [np.asfortranarray(FLOATS), FLOATS.astype(">f4"), FLOATS > 0.5])
def test_other_layouts_of_an_npy(array, tmp_path):
    np.save(tmp_path / "x.npy", array)
    source = open_source(tmp_path / "x.npy")
    assert torch.equal(source.read(3, 7).x, torch.from_numpy(array[3:7].astype(np.float32)))
    assert ("Fortran order" in source.note) == bool(array.flags.f_contiguous)


def test_a_file_that_is_cut_in_mid_run_is_an_error_not_a_signal(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((5000, 100)))
    source = open_source(tmp_path / "x.npy")
    source.read(0, 10)
    with (tmp_path / "x.npy").open("r+b") as file:
        file.truncate(10_000)
    with pytest.raises(OSError, match="changed since the run opened it"):
        source.read(4000, 4010)
    (tmp_path / "x.npy").unlink()
    with pytest.raises(OSError, match="is gone since the run opened it"):
        source.read(0, 1)


ARRAYS = {
    "wrong type": (np.zeros((3, 4), np.int64), "uint8 from 0 to 255 or floats"),
    "channels last": (np.zeros((3, 32, 32, 3), np.uint8), "channels last"),
    "one dimension": (np.zeros(3), r"\[n, D\]"),
    "empty": (np.zeros((0, 4)), "not empty"),
    "objects": (np.array([[None]]), "Python objects"),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_that_are_no_inputs_are_refused(kind, tmp_path):
    array, message = ARRAYS[kind]
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path / "x.npy")
