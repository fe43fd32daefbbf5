"""Data sets: what is read is what was written, and every unfit file is one line that names it."""

import gzip
import pickle
import sys

import numpy as np
import pytest
import torch

from vaefast import data


def idx(array):
    """The idx format, from its definition: 0, 0, 8, rank, sizes, bytes."""
    sizes = b"".join(int(size).to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def write_mnist(root, folder="MNIST", zipped=False):
    """A small set of random images in torchvision's layout; its arrays by file name."""
    random = np.random.default_rng(0)
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    arrays = {}
    for split, rows in (("train", 7), ("t10k", 3)):
        arrays[f"{split}-images-idx3-ubyte"] = random.integers(0, 256, (rows, 5, 4), np.uint8)
        arrays[f"{split}-labels-idx1-ubyte"] = random.integers(0, 10, rows, np.uint8)
    for name, array in arrays.items():
        content = gzip.compress(idx(array)) if zipped else idx(array)
        (raw / (name + ".gz" * zipped)).write_bytes(content)
    return arrays


def write_cifar(root, batches=(1,), name=b"data", extra=None):
    folder = root / "cifar-10-batches-py"
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for file in [*(f"data_batch_{n}" for n in batches), "test_batch"]:
        x = random.integers(0, 256, (4, 3072), np.uint8)
        batch = {name: x, b"labels": [0, 3, 9, 1], b"extra": extra}
        (folder / file).write_bytes(pickle.dumps(batch, protocol=4))
    return folder


def check_invariants(loaded):
    for x, y in ((loaded.x_train, loaded.y_train), (loaded.x_test, loaded.y_test)):
        assert x.dtype == torch.float32
        assert x.min() >= 0
        assert x.max() <= 1
        assert x.shape[1:] == loaded.x_train.shape[1:]
        if y is not None:
            assert y.dtype == torch.int64
            assert y.shape == (len(x),)


def test_digits_are_split_by_class_and_always_alike():
    one, two = data.load("digits"), data.load("digits", root="/does/not/matter")
    check_invariants(one)
    assert one.x_train.shape == (1433, 1, 8, 8)
    assert one.x_test.shape == (364, 1, 8, 8)
    assert torch.equal(one.x_test, two.x_test)
    share = one.y_test.bincount() / (one.y_test.bincount() + one.y_train.bincount())
    assert ((share - 0.2).abs() < 0.01).all()
    assert one.x_train.max() == 1.0


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        data.load("digits")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")]
)
def test_idx_files_are_read_plain_or_zipped(name, folder, zipped, tmp_path, monkeypatch):
    arrays = write_mnist(tmp_path, folder, zipped)
    monkeypatch.setenv("VAEFAST_DATA", str(tmp_path))
    for loaded in (data.load(name), data.load(name, root=tmp_path)):
        check_invariants(loaded)
        pixels = (255 * loaded.x_train[:, 0]).round().byte().numpy()
        assert np.array_equal(pixels, arrays["train-images-idx3-ubyte"])
        assert np.array_equal(loaded.y_test.numpy(), arrays["t10k-labels-idx1-ubyte"])
        assert loaded.note == ""


def test_cifar_batches_are_counted(tmp_path):
    folder = write_cifar(tmp_path, (1, 3))
    loaded = data.load("cifar10", root=tmp_path)
    check_invariants(loaded)
    assert loaded.x_train.shape == (8, 3, 32, 32)
    assert loaded.note == "CIFAR-10 with 2 of five training batches."
    batch = pickle.loads((folder / "test_batch").read_bytes(), encoding="bytes")
    red_row = batch[b"data"][2, :32] / np.float32(255)
    assert np.array_equal(loaded.x_test[2, 0, 0].numpy(), red_row)
    write_cifar(tmp_path, range(1, 6))
    assert data.load("cifar10", root=tmp_path).note == ""


class Evil:
    def __reduce__(self):
        return (sys.exit, ("the pickle ran code",))


@pytest.mark.parametrize("extra", [Evil(), torch.zeros(1), Exception("x")])
def test_a_pickle_with_anything_but_arrays_is_refused(extra, tmp_path):
    write_cifar(tmp_path, extra=extra)
    with pytest.raises(ValueError, match=r"data_batch_1 is not .* which is not allowed"):
        data.load("cifar10", root=tmp_path)


def test_the_published_files(data_root):
    for name, mean in (("mnist", [0.1307]), ("fashion-mnist", [0.2860])):
        loaded = data.load(name, root=data_root)
        check_invariants(loaded)
        assert (len(loaded.x_train), len(loaded.x_test)) == (60000, 10000)
        assert loaded.x_train.mean((0, 2, 3)).tolist() == pytest.approx(mean, abs=1e-4)
    if not (data_root / "cifar-10-batches-py").is_dir():
        pytest.skip("no CIFAR-10")
    loaded = data.load("cifar10", root=data_root)
    check_invariants(loaded)
    assert loaded.y_test.bincount().tolist() == [1000] * 10
    assert ("of five" in loaded.note) == (len(loaded.x_train) < 50000)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mnist", r"train-images-idx3-ubyte \(or .*\.gz\), .* in .*MNIST/raw; put the files there"),
        ("fashion-mnist", "folder that holds FashionMNIST/raw with --data-root .* VAEFAST_DATA"),
        ("cifar10", "data_batch_1 to data_batch_5, test_batch in .*cifar-10-batches-py"),
    ],
)
def test_missing_sets_say_what_belongs_where(name, words, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=words):
        data.load(name, root=tmp_path)
    monkeypatch.delenv("VAEFAST_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=words):
        data.load(name)


def test_only_the_missing_files_are_named(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"^mnist needs t10k-labels-idx1-ubyte"):
        data.load("mnist", root=tmp_path)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("content", [b"", b"\0\0\x08", b"garbage " * 40, "half", "other rank"])
def test_corrupted_idx_files_are_named(content, zipped, tmp_path):
    write_mnist(tmp_path, zipped=zipped)
    path = tmp_path / "MNIST/raw" / ("train-images-idx3-ubyte" + ".gz" * zipped)
    whole = path.read_bytes()
    if content == "half":
        content = whole[: len(whole) // 2]
    elif content == "other rank":
        content = idx(np.zeros(7, np.uint8))
        content = gzip.compress(content) if zipped else content
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path.name} is not a readable idx file") as caught:
        data.load("mnist", root=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("rows", "words"), [(7, "has 7 images, .* 6 labels"), (0, "no images")])
def test_images_and_labels_that_do_not_match(rows, words, tmp_path):
    write_mnist(tmp_path)
    raw = tmp_path / "MNIST/raw"
    (raw / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((rows, 5, 4), np.uint8)))
    (raw / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(6, np.uint8)))
    with pytest.raises(ValueError, match=f"train-images-idx3-ubyte .*{words}"):
        data.load("mnist", root=tmp_path)


@pytest.mark.parametrize("damage", [lambda raw: raw[:100], lambda raw: b"", lambda raw: b"no" * 50])
def test_corrupted_cifar_batches_are_named(damage, tmp_path):
    path = write_cifar(tmp_path) / "test_batch"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="test_batch is not a readable CIFAR-10 batch"):
        data.load("cifar10", root=tmp_path)


def test_cifar_batches_without_images_are_named(tmp_path):
    write_cifar(tmp_path, name=b"pixels")
    with pytest.raises(ValueError, match="data_batch_1 is not a readable CIFAR-10 batch"):
        data.load("cifar10", root=tmp_path)


@pytest.mark.parametrize("shape", [(10, 4, 3), (10, 2, 4, 3), (10, 12)])
@pytest.mark.parametrize("dtype", [np.uint8, bool, np.float16, np.float32, np.float64])
def test_a_file_is_read_in_every_shape_and_type(shape, dtype, tmp_path):
    random = np.random.default_rng(0)
    x = random.random(shape).astype(dtype)
    if dtype == np.uint8:
        x = random.integers(0, 256, shape, np.uint8)
    np.save(tmp_path / "images.npy", x)
    loaded = data.load(tmp_path / "images.npy")
    check_invariants(loaded)
    expected = torch.from_numpy(x.astype(np.float32)) / (255 if dtype == np.uint8 else 1)
    rows = torch.cat([loaded.x_train, loaded.x_test]).flatten(1)
    assert loaded.name == "images.npy"
    assert ("uint8 values from 0 to 255 were divided by 255." in loaded.note) == (dtype == np.uint8)
    assert loaded.y_train is None
    assert loaded.x_train.shape[1:] == ((1, *shape[1:]) if len(shape) == 3 else shape[1:])
    assert torch.equal(rows.sort(dim=0).values, expected.flatten(1).sort(dim=0).values)


def test_a_file_without_a_split_gets_a_fixed_one(tmp_path):
    x = np.arange(100, dtype=np.uint8).reshape(100, 1, 1)
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(100))
    loaded, again = (data.load(str(tmp_path / "d.npz")) for _ in range(2))
    assert torch.equal(loaded.y_test, again.y_test)
    assert len(loaded.y_test) == 20
    assert sorted([*loaded.y_train.tolist(), *loaded.y_test.tolist()]) == list(range(100))
    assert loaded.y_test.tolist() == sorted(loaded.y_test.tolist())
    assert torch.equal((255 * loaded.x_test).round().flatten().long(), loaded.y_test)
    assert "20 of its 100 inputs" in loaded.note


def test_a_split_in_the_file_is_kept(tmp_path):
    x, y = np.random.default_rng(0).random((6, 2, 2)), np.arange(6)
    np.savez_compressed(tmp_path / "d.npz", x=x[:4], y=y[:4], x_test=x[4:], y_test=y[4:], more=y)
    loaded = data.load(tmp_path / "d.npz")
    assert loaded.y_train.tolist() == [0, 1, 2, 3]
    assert loaded.y_test.tolist() == [4, 5]
    assert loaded.note == ""
    np.savez(tmp_path / "d.npz", x=x[:4], y=y[:4], x_test=x[4:])
    assert data.load(tmp_path / "d.npz").y_test is None


def test_a_single_input_stands_in_both_splits(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros((1, 4, 4)))
    loaded = data.load(tmp_path / "one.npy")
    assert torch.equal(loaded.x_train, loaded.x_test)
    assert "one input" in loaded.note


def with_value(value):
    x = np.full((4, 3, 3), 0.5)
    x[0, 0] = value
    return x


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (
            {"x": with_value(np.nan)},
            r"x must be finite, got NaN or infinity in 1 of 4 rows, the first row 0; save x\[np",
        ),
        ({"x": with_value(1e300)}, "got NaN or infinity in 1 of 4 rows"),
        ({"x": with_value(-0.5)}, r"3 of 36 values outside, from -0.5 to 0.5; save \(x \+ 1\) / 2"),
        ({"x": with_value(-0.5)}, "or pass --range -1,1"),
        ({"x": with_value(255.0)}, "save x / 255, or pass --range"),
        ({"x": with_value(-3.0)}, r"rescale it to \[0, 1\], or pass --range -3,0.5"),
        ({"x": with_value(7.0)}, "from 0.5 to 7"),
        ({"x": np.zeros((4, 3, 3), int)}, "must be uint8 from 0 to 255 or floats .* got int64"),
        ({"x": np.zeros((4, 3, 3), complex)}, "got complex128"),
        ({"x": np.zeros(4)}, r"must be \[n, H, W\].* got \[4\]"),
        ({"x": np.zeros((0, 3, 3))}, "not empty"),
        ({"x": np.zeros((4, 8, 8, 3))}, r"channels last; save x.transpose\(0, 3, 1, 2\)"),
        ({"images": np.zeros((4, 3, 3))}, r"d\.npz needs a key x or x_train, got images"),
        ({"x": np.array([[None, {}]])}, "it holds Python objects; save y.astype"),
        ({"x": with_value(0), "y": np.zeros(3, int)}, r"y must be \[n\] = \[4\] .* got \[3\]"),
        ({"x": with_value(0), "y": np.zeros((4, 1), int)}, r"got \[4, 1\]"),
        (
            {"x": with_value(0), "y": np.full(4, 0.5)},
            "y must be whole .* or text, got 0.5; save np",
        ),
        ({"x": with_value(0), "y": np.full(4, -1)}, "whole .* or text, got -1; save y - y.min"),
        ({"x": with_value(0), "x_train": with_value(0)}, "has x and x_train; keep one"),
        (
            {"x": with_value(0), "x_test": np.zeros((2, 4, 4))},
            r"x_test must be \[n, 1, 3, 3\] like",
        ),
        ({"x": with_value(0), "y_test": np.zeros(4, int)}, "has y_test but no x_test"),
    ],
)
def test_unfit_arrays_are_refused(arrays, words, tmp_path):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(ValueError, match=words) as caught:
        data.load(tmp_path / "d.npz")
    assert "d.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize(
    "content", [b"", b"not numpy", b"PK\x03\x04broken", b"\x93NUMPY\x01\x00v", None]
)
def test_corrupted_files_are_named(suffix, content, tmp_path):
    path = tmp_path / f"d{suffix}"
    (np.save if suffix == ".npy" else np.savez)(path, np.zeros((9, 4, 4)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ValueError, match=f"d{suffix} is not a readable NumPy file") as caught:
        data.load(path)
    assert "\n" not in str(caught.value)


def test_names_and_paths_that_lead_nowhere(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no data file .*none\.npz"):
        data.load(tmp_path / "none.npz")
    with pytest.raises(
        ValueError, match="data must be digits, mnist, fashion-mnist, cifar10, a folder"
    ):
        data.load("imagenet")
