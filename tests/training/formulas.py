"""The objectives of the publications in plain float64 PyTorch, for tests."""

import math

import torch
from torch.nn import functional as F


def posterior(vae, x):
    h = vae.encoder.trunk(x)
    return vae.encoder.mean(h), vae.encoder.logvar(h)


def normal_kl(mean, logvar, mean_p=0.0, logvar_p=None):
    logvar_p = torch.zeros_like(logvar) if logvar_p is None else logvar_p
    q = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    p = torch.distributions.Normal(mean_p + torch.zeros_like(mean), (0.5 * logvar_p).exp())
    return torch.distributions.kl_divergence(q, p).sum(1)


def log_bernoulli(vae, x, z):
    logits = vae.decoder(z)
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


def pair_cost(first, second, coupling):
    """½γE‖z−z'‖² + KL(c ‖ q⊗q') at the best covariance, searched for on a grid that is refined."""
    (m1, l1), (m2, l2) = first, second
    s1, s2 = l1.exp(), l2.exp()
    low, high = torch.zeros_like(s1), torch.ones_like(s1)  # of the correlation
    for _ in range(60):
        third = (high - low) / 3
        worse = _cost(low + third, s1, s2, coupling) > _cost(high - third, s1, s2, coupling)
        low, high = torch.where(worse, low + third, low), torch.where(worse, high, high - third)
    rest = 0.5 * coupling * (m1 - m2).square()
    return (rest + _cost(0.5 * (low + high), s1, s2, coupling)).sum(1)


def _cost(correlation, s1, s2, coupling):
    covariance = correlation * (s1 * s2).sqrt()
    information = -0.5 * torch.log1p(-correlation.square())
    return 0.5 * coupling * (s1 + s2 - 2 * covariance) + information


def fisher(vae, x):
    """tr F exactly, from the two Jacobians row by row."""
    found = []
    for row in x:
        mean, logvar = (
            torch.func.jacrev(lambda r, k=k: posterior(vae, r[None])[k][0])(row).flatten(1)
            for k in (0, 1)
        )
        variance = posterior(vae, row[None])[1][0].exp()
        found.append((mean.square().sum(1) / variance + 0.5 * logvar.square().sum(1)).sum())
    return torch.stack(found)


def transition_kl(seen, own, rho, draws):
    """E_z KL(q(z'|x') ‖ N(ρz, (1−ρ²)I)) over draws of z."""
    rest = torch.full_like(seen[1], math.log(1 - rho**2))
    total = 0.0
    for _ in range(draws):
        z = own[0] + (0.5 * own[1]).exp() * torch.randn_like(own[0])
        total = total + normal_kl(*seen, rho * z, rest) / draws
    return total
