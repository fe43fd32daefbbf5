"""Every wrong argument is one line that names it and the way out."""

import pytest
import torch
from torch import nn

from vaefast.hmc import sample


def images(rows, D=6, dtype=torch.float64, seed=0):
    return torch.rand(rows, D, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"chains": 0}, ValueError, "chains must be at least 1"),
        ({"chains": 5000}, ValueError, "chains must be at most 4096"),
        ({"steps": 0}, ValueError, "steps"),
        ({"steps": 2.5}, TypeError, "steps must be a whole number"),
        ({"warmup": -1}, ValueError, "warmup"),
        ({"leapfrog": 0}, ValueError, "leapfrog"),
        ({"step_size": 0.0}, ValueError, "step_size must be positive"),
        ({"step_size": torch.tensor([0.1, -1.0])}, ValueError, "step_size must be positive"),
        ({"step_size": float("inf")}, ValueError, "step_size must be positive and finite"),
        ({"step_size": torch.ones(3)}, ValueError, r"step_size must be a float or \[B\]"),
        ({"adapt": "nuts"}, ValueError, "adapt must be one of 'dual_averaging', None"),
        ({"jitter": 1.0}, ValueError, r"jitter must lie in \[0, 1\)"),
        ({"jitter": -0.1}, ValueError, "jitter"),
        ({"mass": "fisher"}, ValueError, "mass must be one of 'unit', 'posterior'"),
        ({"mass": torch.ones(3)}, ValueError, r"\[d\] = \[2\] or \[B, d\] = \[2, 2\]"),
        ({"mass": torch.tensor([1.0, 0.0])}, ValueError, "mass must be positive"),
        ({"mass": 2.0}, TypeError, "mass must be a torch.Tensor"),
        ({"schedule": "nuts"}, ValueError, "schedule must be one of"),
        ({"schedule": "kuzina2022", "warmup": 5}, ValueError, "fixes warmup"),
        ({"schedule": "kuzina2022", "jitter": 0.1}, ValueError, "jitter=0.1; leave it out"),
        ({"schedule": "kuzina2022", "mass": "posterior"}, ValueError, "mass='posterior'"),
        ({"schedule": "kuzina2022", "group": 3}, ValueError, "group=3 cuts a group"),
        (
            {"schedule": "kuzina2022", "group": 2, "step_size": torch.tensor([0.1, 0.2])},
            ValueError,
            "one step_size per group",
        ),
        ({"group": 2}, ValueError, "group needs schedule="),
        ({"keep": "first"}, ValueError, "keep must be one of 'all', 'last'"),
        ({"keep": 0}, ValueError, "keep"),
        ({"keep": 11}, ValueError, "keep must be at most steps = 10, got 11"),
        ({"precision": "fp8"}, ValueError, "precision must be one of"),
        ({"seed": 0.5}, TypeError, "seed"),
        ({"index": torch.tensor([0, -1])}, ValueError, "index"),
        ({"index": torch.tensor([0.0, 1.0])}, TypeError, "index must be int64"),
        ({"init": torch.zeros(2, 3)}, ValueError, r"init must be \[B, d\] = \[2, 2\] or"),
        ({"init": torch.zeros(2, 4, 2)}, ValueError, r"\[B, C, d\] = \[2, 1, 2\]"),
        ({"init": [0.0]}, TypeError, "init must be a torch.Tensor"),
        ({"backend": "cuda"}, ValueError, "backend must be one of"),
    ],
)
def test_errors_name_the_argument_and_the_way_out(mlp_vae, options, error, message):
    with pytest.raises(error, match=message) as caught:
        sample(mlp_vae(), images(2), **{"steps": 10, **options})
    assert "\n" not in str(caught.value)


def test_errors_of_the_model_and_the_input(mlp_vae):
    with pytest.raises(TypeError, match=r"vae must be a vaefast.VAE.*as_vae"):
        sample(nn.Linear(2, 2), images(2))
    with pytest.raises(ValueError, match=r"x must be \[B, \*event\]"):
        sample(mlp_vae(), images(2)[0])
    with pytest.raises(TypeError, match=r"x must be a torch\.Tensor"):
        sample(mlp_vae(), images(2).numpy())
    with pytest.raises(TypeError, match="float64 like the model"):
        sample(mlp_vae(), images(2).float())
    with pytest.raises(ValueError, match="needs a decoder that lowers"):
        sample(mlp_vae(generic=True), images(2), precision="bf16")
    vae = mlp_vae(generic=True)
    vae.decoder.module = Detached()
    with pytest.raises(RuntimeError, match="no gradient to z"):
        sample(vae, images(2))


class Detached(nn.Module):
    def forward(self, z):
        return z.detach().repeat(1, 3)
