"""Sources give a range of rows in the bits of ``vaefast.data``, and a reason for each other row."""

import gzip
import io
import json
import re
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from vaefast import data
from vaefast.data.dataset import Dataset
from vaefast.jobs.sources import Rows, RowSource, content, open_source, rows_digest

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("xxhash")

DRAW = np.random.default_rng(0)
BYTES = DRAW.integers(0, 256, (11, 1, 4, 5), dtype=np.uint8)
FLOATS = DRAW.random((11, 6), dtype=np.float32)
LABELS = np.arange(11) % 3


def png(pixels, kind="PNG"):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def add(tar, name, content_):
    info = tarfile.TarInfo(name)
    info.size = len(content_)
    tar.addfile(info, io.BytesIO(content_))


def lists(x):
    return pa.array(x.reshape(len(x), -1).tolist(), pa.list_(pa.from_numpy_dtype(x.dtype)))


def write_npy(folder):
    np.save(folder / "x.npy", BYTES)
    np.save(folder / "y.npy", LABELS)
    return folder / "x.npy", {"labels": folder / "y.npy"}


def write_nested(folder):
    cells = pa.array(BYTES.tolist(), pa.list_(pa.list_(pa.list_(pa.uint8()))))
    pq.write_table(pa.table({"x": cells, "y": LABELS}), folder / "x.parquet", row_group_size=4)
    return folder / "x.parquet", {"labels": "y"}


def write_binary(folder):
    cells = pa.array([png(image[0]) for image in BYTES])
    table = pa.table({"image": cells, "name": [f"class {k}" for k in LABELS]})
    pq.write_table(table, folder / "x.parquet", row_group_size=5)
    return folder / "x.parquet", {"labels": "name"}


def write_folder(folder):
    for k, image in enumerate(BYTES[np.argsort(LABELS, kind="stable")]):
        place = folder / "images" / f"class {np.sort(LABELS)[k]}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{k:03d}.png").write_bytes(png(image[0]))
    return folder / "images", {}


def write_tar(folder):
    pytest.importorskip("webdataset")
    for part, rows in enumerate((range(7), range(7, 11))):
        with tarfile.open(folder / f"part-{part}.tar", "w") as tar:
            for k in rows:
                add(tar, f"{k:03d}.png", png(BYTES[k, 0]))
                add(tar, f"{k:03d}.cls", str(LABELS[k]).encode())
    return f"{folder}/part-{{0..1}}.tar", {}


KINDS = [write_npy, write_nested, write_binary, write_folder, write_tar]


def expected(write):
    order = np.argsort(LABELS, kind="stable") if write is write_folder else np.arange(11)
    x = torch.from_numpy(BYTES[order].astype(np.float32)).div_(255.0)
    return x, torch.from_numpy(LABELS[order])


@pytest.mark.parametrize("write", KINDS)
def test_any_range_has_the_bits_of_the_data_module(write, tmp_path):
    spec, options = write(tmp_path)
    source, (x, y) = open_source(spec, **options), expected(write)
    assert isinstance(source, RowSource)
    assert (len(source), source.event_shape) == (11, (1, 4, 5))
    for start, stop in [(0, 11), (3, 4), (4, 9), (2, 5), (10, 11), (0, 1)]:
        rows = source.read(start, stop)
        assert torch.equal(rows.x, x[start:stop])
        assert torch.equal(rows.y, y[start:stop])
        assert rows.index.tolist() == list(range(start, stop))
        assert (rows.index.dtype, rows.y.dtype) == (torch.int64, torch.int64)
        assert (rows.failed, rows.clipped) == ({}, 0)


@pytest.mark.parametrize("write", KINDS)
def test_a_description_opens_the_same_rows(write, tmp_path):
    spec, options = write(tmp_path)
    source = open_source(spec, box=(-1.0, 3.0), **options)
    again = open_source(json.loads(json.dumps(source.description)))
    assert again.fingerprint == source.fingerprint
    assert rows_digest(again.read(2, 9)) == rows_digest(source.read(2, 9))
    assert again.classes == source.classes
    assert source.read(0, 11).x.max() > 2.5


@pytest.mark.parametrize("write", [write_npy, write_nested])
def test_a_path_that_is_relative_is_opened_from_elsewhere(write, tmp_path, monkeypatch):
    spec, _ = write(tmp_path)
    monkeypatch.chdir(tmp_path)
    description = open_source(spec.name).description
    monkeypatch.chdir("/")
    assert len(open_source(description)) == 11


@pytest.mark.parametrize("write", KINDS)
def test_a_changed_byte_changes_the_fingerprint(write, tmp_path):
    spec, options = write(tmp_path)
    before = open_source(spec, **options).fingerprint
    assert before == open_source(spec, **options).fingerprint
    assert before != open_source(spec, box=(0.0, 2.0), **options).fingerprint
    global BYTES
    kept, BYTES = BYTES, BYTES ^ np.eye(4, 5, dtype=np.uint8)
    try:
        spec, options = write(tmp_path)
    finally:
        BYTES = kept
    assert before != open_source(spec, **options).fingerprint


def test_a_large_file_is_sampled_and_its_time_counts(tmp_path, monkeypatch):
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((64, 4096), np.uint8))
    whole = open_source(path).fingerprint
    monkeypatch.setattr(content, "WHOLE", 1 << 16)
    monkeypatch.setattr(content, "BLOCK", 64)
    monkeypatch.setattr(content, "BLOCKS", 8)
    sampled = open_source(path).fingerprint
    assert sampled != whole
    read = []
    monkeypatch.setattr(content, "_read", lambda path, at, n: read.append((at, n)) or bytes(n))
    open_source(path).fingerprint  # noqa: B018
    size = path.stat().st_size
    assert len(read) == 8
    assert read[0] == (0, 64)
    assert read[-1] == (size - 64, 64)
    monkeypatch.undo()
    monkeypatch.setattr(content, "WHOLE", 1 << 16)
    before = open_source(path).fingerprint
    with path.open("r+b") as file:  # a byte that no sample reads
        file.seek(size // 2 + 1000)
        file.write(b"\1")
    assert open_source(path).fingerprint != before


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


@pytest.mark.parametrize("bad", [3, 0])
def test_bad_images_fail_alone(bad, tmp_path):
    """Garbage, cut files, other sizes and colours, deep pixels, a file that is gone."""
    folder = tmp_path / "images"
    folder.mkdir()
    for k in range(8):
        (folder / f"{k}.png").write_bytes(png(BYTES[k, 0]))
    (folder / f"{bad}.png").write_bytes(b"not an image")
    noise = DRAW.integers(0, 256, (4, 5), dtype=np.uint8)
    (folder / "1.png").write_bytes(png(noise)[:-30])
    (folder / "2.png").write_bytes(png(np.zeros((5, 5), np.uint8)))
    (folder / "4.png").write_bytes(png(np.zeros((4, 5, 3), np.uint8)))
    (folder / "5.png").write_bytes(png(np.zeros((4, 5), np.uint16)))
    source = open_source(folder, event_shape=(1, 4, 5))
    (folder / "6.png").unlink()
    rows = source.read(0, 8)
    assert rows.index.tolist() == sorted({0, 3, 7} - {bad})
    assert rows.failed[bad] == "no readable PNG or JPEG image"
    assert rows.failed[1].startswith("no readable PNG or JPEG image")
    assert rows.failed[2] == "5x5 pixels (width x height), not 5x4"
    assert rows.failed[4] == "in colour (mode RGB), not grey"
    assert rows.failed[5] == "more than 8 bits per channel (mode I;16)"
    assert rows.failed[6] == "cannot be read: No such file or directory"
    assert not any(re.search(r"0x|/", why) for why in rows.failed.values())  # the same anywhere
    assert rows_digest(rows) == rows_digest(source.read(0, 8))


def test_folders_are_read_in_the_order_of_their_paths(tmp_path):
    for name in ("b/2.png", "b/10.JPG", "a-b/0.png", "a/z/1.jpeg", ".hidden/0.png", "a/.x.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(np.full((4, 5, 3), len(name), np.uint8), "JPEG"))
    source = open_source(tmp_path)
    names = [source.name(k) for k in range(len(source))]
    assert names == ["a/z/1.jpeg", "a-b/0.png", "b/10.JPG", "b/2.png"]
    assert source.event_shape == (3, 4, 5)
    assert (source.classes, source.read(0, 4).y.tolist()) == (("a", "a-b", "b"), [0, 1, 2, 2])


def test_a_folder_with_splits_gives_the_one_that_was_asked_for(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        (tmp_path / split).mkdir()
        for k in range(count):
            (tmp_path / split / f"{k}.png").write_bytes(png(BYTES[k, 0]))
    assert len(open_source(tmp_path)) == 2
    train = open_source(tmp_path, split="train")
    assert len(train) == len(open_source(train.description)) == 3


def test_a_folder_has_the_order_and_the_labels_of_the_data_module(tmp_path):
    folder, _ = write_folder(tmp_path)
    found, rows = data.load(folder, split="never"), open_source(folder).read(0, 11)
    assert torch.equal(found.x_test, rows.x)
    assert torch.equal(found.y_test, rows.y)


def test_poisoned_lists_fail_alone(tmp_path):
    cells = [row.tolist() for row in FLOATS]
    cells[1], cells[2], cells[3] = None, cells[2][:4], [*cells[3][:5], None]
    cells[5][0] = float("nan")
    table = pa.table({"x": pa.array(cells, pa.list_(pa.float32()))})
    pq.write_table(table, tmp_path / "x.parquet")
    rows = open_source(tmp_path / "x.parquet").read(0, 11)
    assert rows.failed == {
        1: "no value (null)",
        2: "shape [4], not [6]",
        3: "lists of unequal lengths, or a null among the values",
        5: "1 of 6 values is NaN",
    }
    assert torch.equal(rows.x, torch.from_numpy(FLOATS[[0, 4, *range(6, 11)]]))


def test_columns_of_numbers_are_entries(tmp_path):
    columns = {f"c{k}": pa.array(FLOATS[:, k].tolist()) for k in range(6)}
    columns["c1"] = pa.array([*FLOATS[:10, 1].tolist(), None])
    columns["kind"] = pa.array([f"k{k}" for k in LABELS])
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", row_group_size=3)
    source = open_source(tmp_path / "x.parquet", labels="kind")
    rows = source.read(1, 11)
    assert rows.failed == {10: "column 'c1': no value (null)"}
    assert torch.equal(rows.x, torch.from_numpy(FLOATS[1:10]))
    assert (source.classes, rows.y.tolist()) == (("k0", "k1", "k2"), LABELS[1:10].tolist())
    with pytest.raises(ValueError, match="'kind' must hold numbers, lists of them or images"):
        open_source(tmp_path / "x.parquet")


def test_one_of_several_columns_of_lists_is_named(tmp_path):
    table = pa.table({"a": lists(FLOATS), "b": lists(FLOATS[::-1].copy())})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"2 columns of lists or images; name .* x.parquet:a|:a"):
        open_source(tmp_path / "x.parquet")
    source = open_source(f"{tmp_path / 'x.parquet'}:b")
    assert torch.equal(source.read(0, 1).x, torch.from_numpy(FLOATS[10:]))
    assert torch.equal(open_source(source.description).read(0, 1).x, source.read(0, 1).x)


def test_a_folder_of_parquet_files_is_one_source(tmp_path):
    for name, part in (("b", FLOATS[4:]), ("a", FLOATS[:4])):
        table = pa.table({"x": pa.FixedSizeListArray.from_arrays(part.reshape(-1), 6)})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    source = open_source(tmp_path)
    assert torch.equal(source.read(0, 11).x, torch.from_numpy(FLOATS))
    assert torch.equal(open_source(source.description).read(3, 6).x, torch.from_numpy(FLOATS[3:6]))


def test_images_in_structures_as_other_libraries_write_them(tmp_path):
    cells = [{"bytes": png(image[0]), "path": None} for image in BYTES] + [None, {"bytes": None}]
    pq.write_table(pa.table({"image": pa.array(cells)}), tmp_path / "x.parquet")
    rows = open_source(tmp_path / "x.parquet").read(0, 13)
    assert torch.equal(rows.x, expected(write_npy)[0])
    assert rows.failed == dict.fromkeys((11, 12), "no value (null)")


def test_samples_of_a_tar_without_an_image_or_a_class(tmp_path):
    pytest.importorskip("webdataset")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        add(tar, "__meta__", b"{}")
        for k in range(4):
            if k != 1:
                add(tar, f"set/{k}.jpg", png(BYTES[k, 0], "JPEG"))
            add(tar, f"set/{k}.txt", b"words")
            if k != 2:
                add(tar, f"set/{k}.cls", b"7")
    rows = open_source(tmp_path / "x.tar").read(0, 4)
    assert rows.failed == {1: "no member that ends in .png, .jpg, .jpeg"}
    assert rows.y.tolist() == [7, -1, 7]
    with gzip.open(tmp_path / "y.tar", "wb") as file:
        file.write((tmp_path / "x.tar").read_bytes())
    with pytest.raises(ValueError, match="is not a readable plain tar file"):
        open_source(tmp_path / "y.tar")


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


def test_a_function_of_a_file_makes_the_object(tmp_path):
    text = "import numpy as np\n\ndef make_rows():\n    return np.full((5, 3), 0.25)\n"
    (tmp_path / "mine.py").write_text(text)
    source = open_source(f"{tmp_path}/mine.py:make_rows")
    assert open_source(source.description).read(1, 2).x.tolist() == [[0.25] * 3]
    with pytest.raises(ValueError, match="other failed with AttributeError"):
        open_source(f"{tmp_path}/mine.py:other")
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        open_source(f"{tmp_path}/yours.py:make_rows")


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


MISTAKES = {
    "x.npz": r"an .npz is packed .* np.save\('x.npy', np.load\('x.npz'\)\['x'\]\)",
    "x.csv": r"a .csv cannot be read in parts; pandas.read_csv",
    "x.tar.gz": "a packed file cannot be read in parts; unpack it first",
    "x.h5": "data must be digits",
    "nothing.npy": "no data file",
    "nothing.tar": "no data file",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_cannot_be_read_in_parts_is_refused_in_one_line(name, tmp_path):
    if not name.startswith("nothing"):
        (tmp_path / name).write_bytes(b"")
    elif name.endswith(".tar"):
        pytest.importorskip("webdataset")
    with pytest.raises((ValueError, FileNotFoundError), match=MISTAKES[name]) as found:
        open_source(tmp_path / name)
    assert "\n" not in str(found.value)


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


def test_files_of_arbitrary_bytes_are_refused_in_one_line(tmp_path):
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00garbage")
    (tmp_path / "x.parquet").write_bytes(b"PAR1garbage")
    whole = tmp_path / "whole.npy"
    np.save(whole, np.zeros((100, 100)))
    (tmp_path / "cut.npy").write_bytes(whole.read_bytes()[:5000])
    for name in ("x.npy", "cut.npy", "x.parquet"):
        with pytest.raises(ValueError, match="is not a readable") as found:
            open_source(tmp_path / name)
        assert "\n" not in str(found.value)


def test_a_damaged_row_group_fails_alone(tmp_path):
    path = tmp_path / "x.parquet"
    options = {"row_group_size": 4, "compression": "zstd", "use_dictionary": False}
    pq.write_table(pa.table({"x": lists(FLOATS)}), path, **options)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data_ = bytearray(path.read_bytes())
    data_[column.data_page_offset : column.data_page_offset + 8] = bytes(8)
    path.write_bytes(data_)
    source = open_source(path)
    rows = source.read(2, 11)
    assert rows.index.tolist() == [2, 3, 8, 9, 10]
    assert set(rows.failed) == {4, 5, 6, 7}
    assert all(why.startswith("its row group cannot be read: ") for why in rows.failed.values())
    assert str(tmp_path) not in str(rows.failed)
    assert torch.equal(rows.x, torch.from_numpy(FLOATS[[2, 3, 8, 9, 10]]))


def test_a_range_must_be_one(tmp_path):
    source = open_source(FLOATS)
    for start, stop in [(-1, 2), (3, 3), (5, 12)]:
        with pytest.raises(IndexError, match="must lie in 0 to 11"):
            source.read(start, stop)


MEMORY = """
import re, sys, threading, time
from vaefast.jobs.sources import open_source

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

peak, over = 0.0, threading.Event()
def watch():
    global peak
    while not over.wait(0.002):
        peak = max(peak, anonymous())

source = open_source(sys.argv[1])
for at in range(0, 4096, 1024):
    source.read(at, at + 1024)
peak = before = anonymous()
threading.Thread(target=watch, daemon=True).start()
for at in range(0, len(source), 1024):
    assert len(source.read(at, min(at + 1024, len(source))).x)
over.set()
print(len(source), before, peak)
"""


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_memory_is_flat_in_the_number_of_rows(suffix, tmp_path):
    """60,000 images are 47 MB as floats; reading them takes a few shards' worth, 0.8 MB each."""
    x = np.random.default_rng(1).integers(0, 256, (60_000, 196), dtype=np.uint8)
    path = tmp_path / f"x.{suffix}"
    if suffix == "npy":
        np.save(path, x.reshape(-1, 1, 14, 14))
    else:
        cells = pa.FixedSizeListArray.from_arrays(x.reshape(-1), 196)
        pq.write_table(pa.table({"x": cells}), path, row_group_size=60_000, use_dictionary=False)
    done = subprocess.run(
        [sys.executable, "-I", "-c", MEMORY, str(path)], capture_output=True, text=True, check=True
    )
    rows, before, peak = map(float, done.stdout.split())
    assert rows == 60_000
    assert peak - before < 8
