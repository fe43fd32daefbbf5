"""Files of the same few rows, one of every kind, and what must be read from them."""

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

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
