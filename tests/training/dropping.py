"""What tests of training share: a module that trains with random numbers of its own."""

import torch
from torch import nn


class Dropping(nn.Module):
    """Dropout from torch's global generator, buffers that training changes, a frozen weight."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.inner, self.outer = nn.Linear(6, 4), nn.Linear(2, 6)
        self.dropout, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(4)
        self.frozen = nn.Linear(6, 6).eval().requires_grad_(False)
        with torch.no_grad():
            self.frozen.weight.copy_(torch.eye(6))
            self.frozen.bias.zero_()

    def encode(self, x):
        return self.norm(self.inner(self.dropout(x))).chunk(2, 1)

    def decode(self, z):
        return self.frozen(self.outer(z))
