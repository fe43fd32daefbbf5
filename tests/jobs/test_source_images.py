"""Images as files: in folders and in tars."""

import gzip
import re
import tarfile

import numpy as np
import pytest
import torch
from source_files import BYTES, DRAW, add, png, write_folder

from vaefast import data
from vaefast.jobs.sources import open_source, rows_digest


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
