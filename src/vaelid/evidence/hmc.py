"""Hamiltonian Monte Carlo along a path: one transition of all chains of all rows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vaelid.evidence.paths import Path, State
from vaelid.random import Key

VARIED = 1.5  # times a path's useful length: how long trajectories may be whose steps are `varied`


class Move(NamedTuple):
    """Where a transition ended, and the probability with which its proposal was to be accepted, (chain, row)."""

    state: State
    acceptance: Tensor


def transition(path: Path, state: State, beta: Tensor, step: Tensor, leapfrogs: int, key: Key) -> Move:
    """A transition that leaves π_β invariant: fresh momentum, ``leapfrogs`` steps, Metropolis (Duane et al. 1987).

    It costs ``leapfrogs`` decoder rows per chain and row of data, since values and slopes travel with the state. A
    proposal whose energy is not finite is rejected.

    Args:
        path: what π_β is.
        state: where the chains are.
        beta: inverse temperature of each row, (row,).
        step: step size of each row, (row,).
        leapfrogs: steps per trajectory.
        key: names momentum and acceptance noise, by row.
    """
    position, ids = state.position, path.problem.batch.ids()
    chains, _, size = position.shape
    start = key.fold("momentum").normal_rows(ids, chains, size, dtype=position.dtype)
    uniform = key.fold("accept").uniform_rows(ids, chains, 1, dtype=position.dtype)[..., 0]
    beta, step = beta.to(position.dtype), step.to(position.dtype)
    beta_cells, step_cells = beta.unsqueeze(-1), step.unsqueeze(-1)
    momentum, new = start, state
    for _ in range(leapfrogs):
        momentum = momentum + 0.5 * step_cells * path.force(new, beta_cells)
        position, momentum = path.drift(new.position, momentum, step_cells)
        new = path.state(position)
        momentum = momentum + 0.5 * step_cells * path.force(new, beta_cells)
    density = _log_density(new, beta, momentum)
    gain = torch.where(density.isfinite(), density - _log_density(state, beta, start), -torch.inf)
    acceptance = gain.clamp(max=0).exp()
    return Move(new.where(uniform < acceptance, state), acceptance)


def varied(step: Tensor, ids: Tensor, key: Key) -> Tensor:
    """Steps (row,) times a number between 0.4 and 1.2, one per row.

    Trajectories of one length, taken again and again at one temperature, can turn a dimension to near its mirror image
    each time and then hardly mix, with every proposal accepted.
    """
    return step * (0.4 + 0.8 * key.uniform_rows(ids, 1, 1, dtype=torch.float64)[0, :, 0].to(step))


def _log_density(state: State, beta: Tensor, momentum: Tensor) -> Tensor:
    """log of π_β(c) N(momentum; 0, I) up to a constant, (chain, row)."""
    return state.log_base + beta * state.log_weight - 0.5 * momentum.square().sum(-1)
