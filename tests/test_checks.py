"""The check that a model is one function of its input."""

import pytest
import torch
from torch import nn

from vaefast import checks

VARYING = {
    "dropout": nn.Dropout(),
    "batch_norm": nn.BatchNorm1d(4),
    "rrelu": nn.RReLU(),
    "instance_norm": nn.InstanceNorm1d(4, track_running_stats=True),
    "attention": nn.MultiheadAttention(4, 1, dropout=0.1),
    "lstm": nn.LSTM(4, 4, num_layers=2, dropout=0.1),
    "spectral_norm": nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)),
    "old_spectral_norm": nn.utils.spectral_norm(nn.Linear(4, 4)),
}
FIXED = {
    "instance_norm": nn.InstanceNorm1d(4),
    "attention": nn.MultiheadAttention(4, 1),
    "lstm": nn.LSTM(4, 4, num_layers=2),
    "weight_norm": nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
    "layer_norm": nn.LayerNorm(4),
}


@pytest.mark.parametrize("kind", VARYING)
def test_a_layer_that_varies_is_refused_in_training_mode_only(kind):
    model = nn.Sequential(nn.Linear(4, 4), VARYING[kind])
    with pytest.raises(RuntimeError, match=r"layer '1.*is in training mode; call model.eval\(\)"):
        checks.eval_mode(model.train())
    checks.eval_mode(model.eval())


@pytest.mark.parametrize("kind", FIXED)
def test_other_layers_pass_in_training_mode(kind):
    checks.eval_mode(nn.Sequential(nn.Linear(4, 4), FIXED[kind]).train())


def test_weights_made_in_inference_mode_cannot_be_differentiated():
    with torch.inference_mode():
        frozen = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"made under torch.inference_mode"):
        checks.differentiable(frozen)
    checks.differentiable(nn.Linear(2, 2).requires_grad_(False))
