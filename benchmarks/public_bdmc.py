"""Bidirectional Monte Carlo in plain PyTorch, written as the scripts that accompany the papers are.

It follows the recipe of tonywu95/eval_gen (Wu et al. 2017) and lxuechen/BDMC: chains start from the prior, or in
reverse from the latents that the data came from, and walk p(z) p(x|z)^β along a sigmoid schedule. Every distribution
costs two evaluations for its weight, one Hamiltonian trajectory, whose L leapfrogs take L + 1 gradients, and two
evaluations for its acceptance; nothing is remembered from one to the next. Every chain has one step size, which starts
at 0.01 and is multiplied, within the run, by 1.02 where the chain has so far accepted more than 65 % and by 0.98
elsewhere. Kinder than they are: evaluations record no graph, and the likelihood is PyTorch's own.

The constants are theirs, and meant for runs of 500 distributions and more: within 100, a step of 0.01 can only grow to
0.07. A first step chosen for the run at hand makes the gap smaller.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Decoder = Callable[[Tensor], Tensor]
STEP, SHORTEST, LONGEST = 0.01, 1e-4, 0.5  # of a leapfrog: at first, and its limits
GROW, SHRINK, TARGET = 1.02, 0.98, 0.65
RADIUS = 4.0  # of the sigmoid schedule


def rows_per_datum(distributions: int, leapfrogs: int, chains: int) -> int:
    """Decoder rows per datum and direction, each a forward pass of one latent, with its backward or without."""
    return chains * distributions * (leapfrogs + 1 + 4)


def schedule(distributions: int) -> list[float]:
    """β from 0 to 1, crowded at both ends."""
    s = torch.sigmoid(RADIUS * torch.linspace(-1, 1, distributions + 1, dtype=torch.float64))
    betas: list[float] = ((s - s[0]) / (s[-1] - s[0])).tolist()
    return betas


def log_density(decoder: Decoder, x: Tensor, z: Tensor, beta: float) -> Tensor:
    """log p(z) + β log p(x|z) without the normal's constant, (row,), for Bernoulli cells."""
    log_likelihood = -functional.binary_cross_entropy_with_logits(decoder(z), x, reduction="none").sum(1)
    return -0.5 * z.square().sum(1) + beta * log_likelihood


def gradient(decoder: Decoder, x: Tensor, z: Tensor, beta: float) -> Tensor:
    """∇ log p(z) p(x|z)^β."""
    z = z.detach().requires_grad_()
    slope: Tensor = torch.autograd.grad(log_density(decoder, x, z, beta).sum(), z)[0]
    return slope


def trajectory(
    decoder: Decoder, x: Tensor, z: Tensor, momentum: Tensor, beta: float, step: Tensor, leapfrogs: int
) -> tuple[Tensor, Tensor]:
    """Where ``leapfrogs`` steps lead."""
    momentum = momentum + 0.5 * step * gradient(decoder, x, z, beta)
    for i in range(leapfrogs):
        z = z + step * momentum
        whole = 0.5 if i == leapfrogs - 1 else 1.0
        momentum = momentum + whole * step * gradient(decoder, x, z, beta)
    return z, momentum


def anneal(decoder: Decoder, x: Tensor, z: Tensor, betas: list[float], leapfrogs: int, seed: int) -> Tensor:
    """log w of every row from z (row, latent) at the first β to the last."""
    generator = torch.Generator().manual_seed(seed)
    log_weight, accepted = torch.zeros(len(z)), torch.zeros(len(z))
    step = torch.full((len(z), 1), STEP)
    for count, (before, beta) in enumerate(itertools.pairwise(betas), 1):
        momentum = torch.randn(z.shape, generator=generator)
        proposal, end = trajectory(decoder, x, z, momentum, beta, step, leapfrogs)
        with torch.no_grad():
            log_weight += log_density(decoder, x, z, beta) - log_density(decoder, x, z, before)
            old = log_density(decoder, x, z, beta) - 0.5 * momentum.square().sum(1)
            new = log_density(decoder, x, proposal, beta) - 0.5 * end.square().sum(1)
            accept = torch.rand(len(z), generator=generator) < (new - old).exp()
            z = torch.where(accept[:, None], proposal, z)
            accepted += accept
            grows = (accepted / count > TARGET)[:, None]
            step = torch.where(grows, GROW * step, SHRINK * step).clamp(SHORTEST, LONGEST)
    return log_weight


def bound(
    decoder: Decoder, x: Tensor, z: Tensor, distributions: int, leapfrogs: int, chains: int, seed: int, *, reverse: bool
) -> Tensor:
    """A lower bound on log p(x), or in reverse an upper one, of rows x simulated from z, (row,), nats."""
    betas = schedule(distributions)
    start = z.repeat(chains, 1)
    if reverse:
        betas = betas[::-1]
    else:
        start = torch.randn(start.shape, generator=torch.Generator().manual_seed(seed + 1))
    log_weight = anneal(decoder, x.repeat(chains, 1), start, betas, leapfrogs, seed).view(chains, -1)
    log_mean = log_weight.logsumexp(0) - math.log(chains)
    return -log_mean if reverse else log_mean
