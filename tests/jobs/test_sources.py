"""Sources give a range of rows in the bits of ``vaefast.data``, and a reason for each other row."""

import json
import subprocess
import sys

import numpy as np
import pytest
import source_files
import torch
from source_files import FLOATS, KINDS, expected, pa, pq, write_nested, write_npy

from vaefast.jobs.sources import RowSource, content, open_source, rows_digest


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
def test_a_changed_byte_changes_the_fingerprint(write, tmp_path, monkeypatch):
    spec, options = write(tmp_path)
    before = open_source(spec, **options).fingerprint
    assert before == open_source(spec, **options).fingerprint
    assert before != open_source(spec, box=(0.0, 2.0), **options).fingerprint
    changed = source_files.BYTES ^ np.eye(4, 5, dtype=np.uint8)
    monkeypatch.setattr(source_files, "BYTES", changed)
    spec, options = write(tmp_path)
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
