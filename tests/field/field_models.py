"""What field tests share: a model with a place to misbehave, and the warnings that a call gives."""

import warnings

import torch
from torch import nn


class Hidden(nn.Module):
    """Linear layers around ``hidden``, which subclasses replace; images of ``side`` by ``side``."""

    side, latents = 8, 4

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.e = nn.Linear(self.side**2, 2 * self.latents)
        self.d = nn.Linear(self.latents, self.side**2)

    def hidden(self, x):
        return x

    def encode(self, x):
        return self.e(self.hidden(x).flatten(1)).chunk(2, 1)

    def decode(self, z):
        return self.d(z).view(-1, 1, self.side, self.side)


def warned(function, words):
    """The warnings with these words that a call gives."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        function()
    return [str(w.message) for w in seen if words in str(w.message)]
