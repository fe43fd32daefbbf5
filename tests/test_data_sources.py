"""Boxes, labels, tables and folders: what is read, and the line that says why something is not."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from vaefast import data

X = np.random.default_rng(0).random((10, 4, 4)).astype(np.float32)


def rows(loaded):
    """All inputs in the order of the file: its test rows are a sorted fifth."""
    return sorted(torch.cat([loaded.x_train, loaded.x_test]).flatten(1).tolist())


def refused(match, *words, kind=ValueError, **options):
    with pytest.raises(kind, match=match) as caught:
        data.load(*words, **options)
    assert "\n" not in str(caught.value)


def test_floats_keep_to_the_given_box(tmp_path):
    np.save(tmp_path / "d.npy", 2 * X - 1)
    loaded = data.load(tmp_path / "d.npy", low=-1)
    assert (loaded.low, loaded.high) == (-1.0, 1.0)
    assert rows(loaded) == sorted((2 * X - 1).reshape(10, -1).tolist())
    refused(r"must be in \[0, 1\]", tmp_path / "d.npy")
    refused("rescale x, or name its own range", tmp_path / "d.npy", low=-0.1, high=1)
    refused("low must be below high", tmp_path / "d.npy", low=1, high=1)


def test_bytes_and_known_sets_are_mapped_to_the_box(tmp_path):
    x = (255 * X).astype(np.uint8)
    np.savez(tmp_path / "d.npz", x=x[:6], x_test=x[6:])
    loaded = data.load(tmp_path / "d.npz", low=-1, high=1)
    expected = torch.from_numpy(x[6:, None] / np.float32(255) * 2 - 1)
    torch.testing.assert_close(loaded.x_test, expected)
    assert loaded.note == "uint8 values from 0 to 255 were mapped to [-1, 1]."
    refused("needs a finite range", tmp_path / "d.npz", high=np.inf)
    digits, mapped = data.load("digits"), data.load("digits", low=-1, high=1)
    torch.testing.assert_close(mapped.x_test, 2 * digits.x_test - 1)
    assert "mapped to [-1, 1]" in mapped.note
    refused("digits needs a finite range", "digits", low=-np.inf)


def test_a_table_outside_the_unit_interval_has_no_box(tmp_path):
    flat = X.reshape(10, -1)
    np.save(tmp_path / "in.npy", flat)
    np.save(tmp_path / "out.npy", 5 * flat - 2)
    inside, outside = data.load(tmp_path / "in.npy"), data.load(tmp_path / "out.npy")
    assert (inside.low, inside.high, inside.images) == (0, 1, False)
    assert (outside.low, outside.high) == (-np.inf, np.inf)
    assert "have no box" in outside.note
    assert data.load(tmp_path / "out.npy", low=-2, high=3).high == 3


def test_train_keys_are_taken(tmp_path):
    y = np.arange(10) % 2
    np.savez(tmp_path / "d.npz", x_train=X[:7], y_train=y[:7], x_test=X[7:], y_test=y[7:])
    loaded = data.load(tmp_path / "d.npz")
    assert len(loaded.x_train) == 7
    assert loaded.y_train.tolist() == y[:7].tolist()
    assert loaded.y_test.tolist() == y[7:].tolist()


NAMES = np.array(["owl", "ant", "owl", "bee", "ant", "bee", "owl", "owl", "ant", "bee"])


def write_labels(folder, kind, labels):
    path = folder / f"labels.{kind.partition('-')[0]}"
    lines = [str(label) for label in labels]
    if kind == "npy":
        np.save(path, labels)
    elif kind in ("npz", "npz-key"):
        np.savez(
            path, **{"only" if kind == "npz" else "b": labels} | ({"a": 0} if "-" in kind else {})
        )
    elif kind == "parquet":
        pq.write_table(pa.table({"label": labels.tolist()}), path)
    elif kind == "csv-column":
        path.write_text("id,kind\n" + "\n".join(f"{k},{line}" for k, line in enumerate(lines)))
    else:
        path.write_text("\n".join(["label"] * kind.endswith("header") + lines) + "\n")
    return f"{path}:b" if kind == "npz-key" else f"{path}:kind" if kind == "csv-column" else path


KINDS = ("npy", "npz", "npz-key", "parquet", "csv", "csv-header", "csv-column", "txt", "txt-header")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", [False, True])
def test_labels_come_from_every_kind_of_file(kind, text, tmp_path):
    np.savez(tmp_path / "d.npz", x=X[:6], x_test=X[6:], y=np.zeros(6, int))
    numbers = np.unique(NAMES, return_inverse=True)[1]
    labels = write_labels(tmp_path, kind, NAMES if text else numbers)
    loaded = data.load(tmp_path / "d.npz", labels=labels)
    assert loaded.y_train.tolist() == numbers[:6].tolist()
    assert loaded.y_test.tolist() == numbers[6:].tolist()
    assert loaded.classes == (("ant", "bee", "owl") if text else ())


def test_labels_follow_their_rows_through_the_split(tmp_path):
    x = np.arange(10, dtype=np.uint8).reshape(10, 1, 1)
    np.save(tmp_path / "d.npy", x)
    np.save(tmp_path / "y.npy", np.arange(10))
    loaded = data.load(tmp_path / "d.npy", labels=tmp_path / "y.npy")
    assert torch.equal((255 * loaded.x_test).round().flatten().long(), loaded.y_test)
    assert torch.equal((255 * loaded.x_train).round().flatten().long(), loaded.y_train)


def test_text_labels_inside_an_npz_are_one_set_of_classes(tmp_path):
    np.savez(tmp_path / "d.npz", x=X[:6], x_test=X[6:], y=NAMES[:6], y_test=NAMES[6:])
    loaded = data.load(tmp_path / "d.npz")
    assert loaded.classes == ("ant", "bee", "owl")
    assert [loaded.classes[k] for k in loaded.y_test] == NAMES[6:].tolist()


def test_known_sets_take_other_labels(tmp_path):
    np.save(tmp_path / "y.npy", np.arange(1797) % 3)
    loaded = data.load("digits", labels=tmp_path / "y.npy")
    assert len(loaded.y_train) == 1433
    assert loaded.y_test.tolist() == (np.arange(1433, 1797) % 3).tolist()


def test_unfit_labels_are_one_line(tmp_path):
    np.save(tmp_path / "d.npy", X)
    np.save(tmp_path / "short.npy", np.arange(3))
    np.save(tmp_path / "half.npy", np.full(10, 0.5))
    np.savez(tmp_path / "two.npz", a=np.arange(10), b=np.arange(10))
    (tmp_path / "two.csv").write_text("a,b\n" + "1,2\n" * 10)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "short.npy").read_bytes()[:90])

    def labels(name, match, kind=ValueError):
        refused(match, tmp_path / "d.npy", labels=f"{tmp_path}/{name}", kind=kind)

    labels("none.csv", "no labels file .*none.csv", FileNotFoundError)
    labels("y.xls", "path that ends in .npy, .npz, .csv, .txt, .parquet")
    labels("short.npy", r"must hold \[10\] labels, .* got \[3\]")
    labels("half.npy", "whole numbers from 0 or text, got 0.5")
    labels("two.npz", "has no key y, got a, b; name one as in two.npz:key")
    labels("two.npz:c", "has no key c, got a, b")
    labels("two.csv", "has 2 columns; name that of the labels, as in two.csv:a")
    labels("two.csv:c", "has no column 'c', got a, b")
    labels("cut.npy", "is not a readable NumPy file .*: it ends too early")


TABLE = "size,weight,kind\n" + "".join(f"{k},{-k / 2},{'ab'[k % 2]}\n" for k in range(10))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_is_numeric_columns_and_may_hold_its_labels(separator, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(TABLE.replace(",", separator))
    loaded = data.load(path, labels=f"{path}:kind")
    assert rows(loaded) == [[k, -k / 2] for k in range(10)]
    assert loaded.classes == ("a", "b")
    size = loaded.x_test[:, 0].long()
    assert torch.equal(loaded.y_test, size % 2)


def test_parquet_and_headless_tables(tmp_path):
    columns = {"a": np.arange(10.0), "b": np.arange(10)}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("".join(f"{k},{k}\n" for k in range(10)))
    for name in ("t.parquet", "t.csv"):
        assert rows(data.load(tmp_path / name)) == [[k, k] for k in range(10)]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (TABLE, "column 'kind' must hold numbers, got 'a' in row 0; .*--labels t.csv:kind"),
        ("a,b\n1,2\n3,\n", "column 'b' must hold numbers, got an empty cell in row 1"),
        ("a,b\n1,2\n3\n", "line 3 has 1 values, line 1 has 2"),
        ("a,a\n1,2\n", "two columns of one name"),
        (",a\n0,1\n", "index=False"),
        ("", "is empty"),
        ("a,b\n", "not empty"),
        ("a,b\n1,nan\n", "must be finite"),
    ],
)
def test_unfit_tables_are_one_line(text, match, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    refused(match, tmp_path / "t.csv")


def test_corrupted_tables_are_named(tmp_path):
    (tmp_path / "t.parquet").write_text("no")
    refused("t.parquet is not a readable parquet file", tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00\x81")
    refused("t.csv is not a readable table", tmp_path / "t.csv")


def save(path, *, size=(5, 4), mode="L", value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new(mode, size, value)
    image.save(path)


def test_a_folder_is_read_in_sorted_order(tmp_path):
    for k, suffix in enumerate(["b.png", "c.jpg", "a.PNG", "d.jpeg"]):
        save(tmp_path / suffix, value=10 * k)
    (tmp_path / "notes.txt").touch()
    loaded = data.load(tmp_path)
    x = torch.cat([loaded.x_train, loaded.x_test])
    assert x.shape == (4, 1, 4, 5)
    values = [round(255 * v) for v in x[:, 0, 0, 0].tolist()]
    assert sorted(values) == [0, 10, 20, 30]
    assert "The folder has no test set" in loaded.note
    assert loaded.y_train is None


def test_colours_decide_for_all(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png", mode="RGBA", value=(255, 0, 0, 7))
    loaded = data.load(tmp_path)
    assert loaded.x_train.shape[1:] == (3, 4, 5)
    red = next(x for x in torch.cat([loaded.x_train, loaded.x_test]) if x.any())
    assert red[:, 0, 0].tolist() == [1, 0, 0]


def test_sub_folders_are_labels_and_splits(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        for name in ("cat", "dog"):
            for k in range(count):
                save(tmp_path / split / name / f"{k}.png", value=100 * (name == "dog") + k)
    loaded = data.load(tmp_path, low=-1, high=1)
    assert (len(loaded.x_train), len(loaded.x_test)) == (6, 4)
    assert loaded.classes == ("cat", "dog")
    assert loaded.y_test.tolist() == [0, 0, 1, 1]
    assert ((loaded.x_test[:, 0, 0, 0] > -0.5).long() == loaded.y_test).all()
    assert data.load(tmp_path / "train").classes == ("cat", "dog")


def test_unfit_folders_are_one_line(tmp_path):
    refused("holds no images; they end in .png", tmp_path)
    save(tmp_path / "a.png")
    save(tmp_path / "b.png", size=(6, 4))
    save(tmp_path / "c.png", size=(7, 4))
    refused(r"a.png is 5x4 pixels \(width x height\), .*b.png is 6x4; resize", tmp_path)
    (tmp_path / "b.png").write_text("no image")
    refused("b.png is not a readable image", tmp_path)
    save(tmp_path / "b.png", mode="I;16")
    refused("more than 8 bits per channel", tmp_path)
    (tmp_path / "b.png").unlink()
    save(tmp_path / "cat" / "a.png")
    refused(r"holds images and sub-folders with images \(cat\)", tmp_path)


def test_a_truncated_image_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    refused("a.png is not a readable image", tmp_path)
