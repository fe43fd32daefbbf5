"""Pictures decode to the pixels that were put in."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from vaefast.report.images import data_uri, direction_strip, strip


def pixels(uri):
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_come_back(channels):
    values = torch.randint(0, 256, (channels, 5, 7))
    found = pixels(data_uri(values / 255))
    assert np.array_equal(found, values.permute(1, 2, 0).squeeze(-1).numpy())


def test_values_are_clipped_and_nan_is_black():
    image = torch.tensor([[[-1.0, 2.0, torch.nan]]])
    assert pixels(data_uri(image)).tolist() == [[0, 255, 0]]


def test_other_channel_numbers_show_their_mean():
    image = torch.stack([torch.zeros(2, 2), torch.ones(2, 2)])
    assert (pixels(data_uri(image)) == 128).all()


def test_a_strip_marks_changed_classes():
    found = strip("Original", torch.zeros(2, 1, 4, 4), np.array([1, 2]), np.array([1, 3]))
    assert [p.changed for p in found.pictures] == [False, True]
    assert found.pictures[1].predicted == "2"
    assert "predicted 2" in found.pictures[1].alt


def test_classes_are_shown_by_name():
    classes = np.array([1, -1])
    found = strip("Original", torch.zeros(2, 1, 4, 4), classes, classes, ("owl", "ant"))
    assert [p.predicted for p in found.pictures] == ["ant", "–"]


def test_a_direction_is_grey_where_it_is_zero():
    direction = torch.tensor([[[[0.0, 2.0, -2.0]]]])
    assert pixels(direction_strip("d", direction).pictures[0].uri).tolist() == [[128, 255, 0]]
