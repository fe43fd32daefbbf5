"""Parquet: columns of lists, of numbers and of images."""

import pytest
import torch
from source_files import BYTES, FLOATS, LABELS, expected, lists, pa, png, pq, write_npy

from vaefast.jobs.sources import open_source


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
