"""The measured working memory of one row."""

import pytest
import torch
from torch import nn

from vaefast.models.footprint import WORKING, activation_bytes

FLOAT = 4


def test_saved_tensors_are_counted_once_and_weights_are_not():
    """Linear saves its input, tanh its output, exp its output; the rows of x do not matter."""
    model = nn.Sequential(nn.Linear(10, 6), nn.Tanh(), nn.Linear(6, 5))
    expected = WORKING * FLOAT * (10 + 6 + 5)
    for rows in (1, 8):
        x = torch.zeros(rows, 10)
        assert activation_bytes(lambda x: model(x).exp(), x, model) == expected


def test_no_rows_cost_nothing():
    model = nn.Linear(10, 6)
    assert activation_bytes(model, torch.zeros(0, 10), model) == 0


def test_works_without_grad_mode_and_leaves_no_gradient():
    model = nn.Linear(10, 6)
    with torch.no_grad():
        assert activation_bytes(model, torch.zeros(1, 10), model) == WORKING * FLOAT * 10
    assert model.weight.grad is None


def test_works_under_inference_mode():
    model = nn.Linear(10, 6)
    with torch.inference_mode():
        assert activation_bytes(model, torch.zeros(1, 10), model) == WORKING * FLOAT * 10


def test_a_model_made_in_inference_mode_is_refused():
    with torch.inference_mode():
        model = nn.Linear(10, 6)
    with pytest.raises(ValueError, match=r"made under torch.inference_mode"):
        activation_bytes(model, torch.zeros(1, 10), model)
