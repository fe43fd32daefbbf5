"""Small classifiers for the attack libraries' tests, and what compares two attacks."""

import torch
from torch import nn

CLASSES = 5


class Convolutional(nn.Module):
    """Two convolutions with batch norm and dropout, and a linear head."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.Tanh(),
            nn.Conv2d(6, 4, 3, stride=2),
            nn.ELU(),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.Linear(36, CLASSES),
        )
        self.scale = scale

    def forward(self, x):
        return self.scale * self.layers(x)


class Flat(nn.Module):
    """Logits that do not depend on their input."""

    def forward(self, x):
        return torch.zeros(len(x), CLASSES, dtype=x.dtype) + 0.0 * x.flatten(1)[:, :CLASSES]


def make(dtype=torch.float64, scale=1.0, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Convolutional(scale).to(dtype).eval()


def images(rows=6, dtype=torch.float64, seed=1):
    """Images [n, 3, 8, 8] in [0, 1], some pixels at the ends, and labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(rows, 3, 8, 8, generator=generator, dtype=torch.float64)
    x = (1.2 * x - 0.1).clamp(0.0, 1.0).to(dtype)
    return x, torch.randint(0, CLASSES, (rows,), generator=generator)


class Steep(nn.Module):
    """The classifier with a root: its gradient in the first pixel is NaN or infinite at 0."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.inner = make(dtype)

    def forward(self, x):
        return self.inner(x) + x[:, 0, 0, 0].sqrt()[:, None] * torch.arange(CLASSES)
