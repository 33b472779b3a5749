"""GEORCE with the midpoint rule: geodesics under a metric G(z) for which there is no embedding.

With steps uᵢ = zᵢ₊₁ − zᵢ and G taken in the middle of each, the energy N/2 Σ uᵢᵀ Gᵢ uᵢ under Σ uᵢ = b − a is lowered by
steps in closed form: its gradient by uᵢ is N (Gᵢ uᵢ + ½ cᵢ) with cᵢ = ½ νᵢ + Σ_{j>i} νⱼ, νⱼ = ∇_z (uⱼᵀ G(z) uⱼ); with G
and c held, the minimum is uᵢ = −½ Gᵢ⁻¹ (cᵢ + μ), μ = −(Σ Gᵢ⁻¹)⁻¹ (2 (b − a) + Σ Gᵢ⁻¹ cᵢ) (Rygaard and Hauberg 2025,
proposition 2, there with G at the left end of each segment).
"""

from __future__ import annotations

import torch
from torch import Tensor

from vaelid.geometry.manifold import MetricField
from vaelid.geometry.newton import Minimum, Status

_SHORTEST = 2.0**-20  # of the closed-form step


@torch.no_grad()
def georce(f: MetricField, start: Tensor, tolerance: float, iterations: int) -> Minimum:
    """Lower the energy of curves (n, N + 1, d), their ends held, until decrement² ≤ tolerance · energy.

    The decrement is that of the model that gives the step: −⟨∇E, step⟩.
    """
    n, device = len(start), start.device
    nodes, energy = start.clone(), f.path_energy(start)
    decrement = torch.full_like(energy, torch.inf)
    status = torch.full((n,), int(Status.MORE), device=device)
    status[~energy.isfinite()] = int(Status.BROKEN)
    taken = torch.zeros(n, dtype=torch.int64, device=device)
    for step in range(iterations + 1):
        active = (status == int(Status.MORE)).nonzero()[:, 0]
        if not len(active):
            break
        direction, slope = _direction(f, nodes[active])
        relative = -slope / energy[active].clamp_min(torch.finfo(torch.float64).tiny)
        decrement[active] = torch.where(relative.isfinite(), relative, torch.inf)
        relative = torch.where(energy[active] == 0, 0.0, relative)  # nothing moves
        status[active[~relative.isfinite()]] = int(Status.BROKEN)
        status[active[relative <= tolerance]] = int(Status.CONVERGED)
        rows = (status[active] == int(Status.MORE)).nonzero()[:, 0]
        if step == iterations or not len(rows):
            continue
        active, direction, slope = active[rows], direction[rows], slope[rows]
        taken[active] += 1
        share, waiting = 1.0, torch.arange(len(active), device=device)
        while len(waiting) and share >= _SHORTEST:
            trial = nodes[active[waiting]] + share * direction[waiting]
            reached = f.path_energy(trial)
            good = reached <= energy[active[waiting]] + 0.1 * share * slope[waiting]  # Armijo's condition
            nodes[active[waiting[good]]], energy[active[waiting[good]]] = trial[good], reached[good]
            waiting, share = waiting[~good], share / 2
        status[active[waiting]] = int(Status.STALLED)
    return Minimum(nodes, energy, decrement, status, taken)


def _direction(f: MetricField, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """From the nodes to where the closed form puts them, (n, N + 1, d), and the energy's slope that way, (n,)."""
    n, size, d = nodes.shape
    segments = size - 1
    steps, middle = nodes.diff(dim=1), 0.5 * (nodes[:, :-1] + nodes[:, 1:])
    flat = middle.reshape(-1, d)
    metric = f.metric(flat).view(n, segments, d, d)
    turn = torch.func.grad(lambda z: 2 * f.lagrangian(z, steps.reshape(-1, d)).sum())(flat).view(n, segments, d)
    after = turn.flip(1).cumsum(1).flip(1) - 0.5 * turn
    inverse, fails = torch.linalg.inv_ex(metric.nan_to_num())
    lost = (fails != 0).any(1) | ~metric.flatten(1).isfinite().all(1)
    pulled = (inverse @ after.unsqueeze(-1)).squeeze(-1)
    whole = nodes[:, -1] - nodes[:, 0]
    force = -torch.linalg.solve_ex(inverse.sum(1), 2 * whole + pulled.sum(1)).result
    found = -0.5 * (pulled + (inverse @ force[:, None, :, None]).squeeze(-1))
    change = found - steps
    gradient = segments * ((metric @ steps.unsqueeze(-1)).squeeze(-1) + 0.5 * after)
    direction = torch.zeros_like(nodes)
    direction[:, 1:-1] = change.cumsum(1)[:, :-1]
    slope = (gradient * change).sum((1, 2), dtype=torch.float64)
    return direction, torch.where(lost, torch.nan, slope)
