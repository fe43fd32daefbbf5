"""One table of all shards: every row once, the same bytes for any shards, other tools read it."""

import importlib
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from vaefast.jobs import table as tables
from vaefast.jobs.table import merge_shards, table_metadata

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

N = 1000
MARGIN = np.random.default_rng(0).random(N)
ABOUT = {"fingerprint": "f1", "guarantee": "first order, not a certificate", "versions": {"a": 1}}
FIELDS = {"margin": {"unit": "pixel scale, ℓ2", "meaning": "how far"}}


def rows(start, stop, **change):
    index = np.arange(start, stop)
    columns = {
        "index": index,
        "label": index % 10,
        "failed": index % 97 == 0,
        "reason": pa.array([f"why {k}" if k % 97 == 0 else "" for k in index]),
        "margin": np.where(index % 97 == 0, np.nan, MARGIN[index % N]),
        "eigenvalues": pa.FixedSizeListArray.from_arrays(
            pa.array(np.repeat(MARGIN[index % N], 3)), 3
        ),
    }
    return pa.table(columns | change)


def shards(folder, size, n=N, options=None):
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, start in enumerate(range(0, n, size)):
        path = folder / f"{number:08d}.parquet"
        part = rows(start, min(start + size, n))
        part = part.replace_schema_metadata({"vaefast": json.dumps({"seconds": {"read": size}})})
        pq.write_table(part, path, **(options or {}))
        paths.append(path)
    return paths


def merged(folder, paths, **options):
    out = folder / "all.parquet"
    assert merge_shards(paths, out, ABOUT, fields=FIELDS, **options) == N
    return out.read_bytes()


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    monkeypatch.setattr(tables, "GROUP", 300)


def test_bytes_do_not_depend_on_shards(tmp_path):
    whole = merged(tmp_path, shards(tmp_path / "whole", N))
    for size, options in ((7, {"row_group_size": 3}), (300, {"compression": "none"}), (999, {})):
        paths = shards(tmp_path / str(size), size, options=options)
        assert merged(tmp_path, paths[::-1], rows=N) == whole
    found = pq.read_table(tmp_path / "all.parquet")
    assert found.equals(rows(0, N)) or found.drop(["margin"]).equals(rows(0, N).drop(["margin"]))
    np.testing.assert_array_equal(found["margin"], rows(0, N)["margin"])
    groups = pq.read_metadata(tmp_path / "all.parquet")
    assert [groups.row_group(k).num_rows for k in range(4)] == [300, 300, 300, 100]


def test_metadata_and_units_stand_in_the_file(tmp_path):
    merged(tmp_path, shards(tmp_path / "s", 100))
    assert table_metadata(tmp_path / "all.parquet") == ABOUT
    field = pq.read_schema(tmp_path / "all.parquet").field("margin")
    assert field.metadata[b"unit"].decode() == "pixel scale, ℓ2"
    assert table_metadata(tmp_path / "s" / "00000000.parquet") == {"seconds": {"read": 100}}
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="has no metadata of vaefast"):
        table_metadata(tmp_path / "other.parquet")


def write(path, *ranges):
    pq.write_table(pa.concat_tables([rows(*r) for r in ranges]), path)
    return path


WRONG = {
    "a shard is lost": ([[(0, 10)], [(20, 30)]], None, "rows 10 to 19 are lost"),
    "the first is lost": ([[(4, 10)]], None, "rows 0 to 3 are lost"),
    "the last is lost": ([[(0, 10)]], 12, "rows 10 to 11 are lost"),
    "a shard is there twice": ([[(0, 10)], [(0, 10)]], None, "rows 0 to 9 are there twice"),
    "they overlap": ([[(0, 10)], [(8, 20)]], None, "rows 8 to 9 are there twice"),
    "a row is lost inside": ([[(0, 5), (6, 10)]], None, "rows 5 are lost"),
    "a row is doubled inside": ([[(0, 5), (4, 10)]], None, "rows 4 are there twice"),
    "there are too many": ([[(0, 10)]], 8, "rows 8 to 9 are there twice or not of this run"),
    "both": ([[(0, 5)], [(3, 5)], [(7, 9)]], None, "rows 5 to 6 are lost; rows 3 to 4 are there"),
}


@pytest.mark.parametrize("case", WRONG)
def test_lost_and_doubled_rows_are_named(case, tmp_path):
    parts, count, message = WRONG[case]
    paths = [write(tmp_path / f"{k}.parquet", *part) for k, part in enumerate(parts)]
    with pytest.raises(ValueError, match=message) as found:
        merge_shards(paths, tmp_path / "all.parquet", ABOUT, rows=count)
    assert "\n" not in str(found.value)
    assert not list(tmp_path.glob("*all.parquet*"))
    assert not list(tmp_path.glob(".*"))


def test_many_lost_ranges_are_counted(tmp_path):
    paths = [write(tmp_path / f"{k}.parquet", (3 * k, 3 * k + 1)) for k in range(20)]
    with pytest.raises(ValueError, match=r"rows 1 to 2, .* 28 to 29 and 9 further ranges are lost"):
        merge_shards(paths, tmp_path / "all.parquet", ABOUT)


def test_an_old_table_stays_where_the_new_one_fails(tmp_path):
    (tmp_path / "all.parquet").write_bytes(b"old")
    with pytest.raises(ValueError, match="are lost"):
        merge_shards(shards(tmp_path / "s", 100)[1:], tmp_path / "all.parquet", ABOUT)
    assert (tmp_path / "all.parquet").read_bytes() == b"old"


def test_shards_that_do_not_belong_together_are_refused(tmp_path):
    paths = shards(tmp_path / "s", 500)
    pq.write_table(rows(500, N).drop(["label"]), paths[1])
    with pytest.raises(ValueError, match=r"00000001.parquet has other columns \(label\)"):
        merge_shards(paths, tmp_path / "all.parquet", ABOUT)
    paths[1].write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(ValueError, match="is not a readable shard"):
        merge_shards(paths, tmp_path / "all.parquet", ABOUT)
    with pytest.raises(ValueError, match="there are no shards"):
        merge_shards([], tmp_path / "all.parquet", ABOUT)


def by_pandas(path):
    frame = importlib.import_module("pandas").read_parquet(path)
    return frame["margin"].to_numpy(), frame["reason"].tolist(), len(frame["eigenvalues"][5])


def by_polars(path):
    frame = importlib.import_module("polars").read_parquet(path)
    return frame["margin"].to_numpy(), frame["reason"].to_list(), len(frame["eigenvalues"][5])


def by_duckdb(path):
    query = f"select margin, reason, len(eigenvalues) as m from '{path}' order by index"
    found = importlib.import_module("duckdb").sql(query).fetchnumpy()
    return np.asarray(found["margin"]), found["reason"].tolist(), found["m"][5]


@pytest.mark.parametrize("read", [by_pandas, by_polars, by_duckdb])
def test_other_tools_read_it(read, tmp_path):
    pytest.importorskip(read.__name__.removeprefix("by_"))
    merged(tmp_path, shards(tmp_path / "s", 90))
    margin, reason, count = read(tmp_path / "all.parquet")
    np.testing.assert_array_equal(np.ma.filled(margin, np.nan), rows(0, N)["margin"].to_numpy())
    assert (reason, count) == (rows(0, N)["reason"].to_pylist(), 3)


MEMORY = """
import re, sys, pathlib
from vaefast.jobs import table
from vaefast.jobs.table import merge_shards

table.GROUP = 1 << 13

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

paths = sorted(pathlib.Path(sys.argv[1]).glob("*.parquet"))
out = pathlib.Path(sys.argv[1]).parent / "all.parquet"
merge_shards(paths[:8], out, {})
before = anonymous()
import pyarrow as pa
merge_shards(paths, out, {})
print(before, anonymous(), pa.default_memory_pool().max_memory() / 2**20)
"""


def test_memory_is_flat_in_the_number_of_rows(tmp_path):
    """200,000 rows of 136 bytes; a group of them is 1.1 MB."""
    folder, wide = tmp_path / "s", np.random.default_rng(1).random((5_000, 16))
    folder.mkdir()
    for number in range(40):
        columns = {f"c{k}": wide[:, k] for k in range(16)}
        index = np.arange(number * 5_000, (number + 1) * 5_000)
        pq.write_table(pa.table({"index": index} | columns), folder / f"{number:08d}.parquet")
    done = subprocess.run(
        [sys.executable, "-I", "-c", MEMORY, str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    before, after, pool = map(float, re.findall(r"[\d.]+", done.stdout))
    assert pool < 12  # all of them are 27 MB
    assert after - before < 16
    assert pq.read_metadata(tmp_path / "all.parquet").num_rows == 200_000
