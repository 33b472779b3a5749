"""The chord energy of whole curves, its gradient, and Gauss–Newton's block-tridiagonal systems, batched over curves.

E = N/2 Σᵢ |r(φᵢ, φᵢ₊₁)|² over the N segments of a curve with nodes z₀ … z_N; with A = ∂r/∂zᵢ and B = ∂r/∂zᵢ₊₁
gₖ = N (Bₖ₋₁ rₖ₋₁ + Aₖ rₖ),  Hₖₖ = N (Bₖ₋₁ Bₖ₋₁ᵀ + Aₖ Aₖᵀ),  Hₖ,ₖ₊₁ = N Aₖ Bₖᵀ.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, final

import torch
from torch import Tensor

from vaelid.geometry.manifold import Embedding
from vaelid.geometry.targets import Flat
from vaelid.networks.products import FastProducts


@final
@dataclass(frozen=True, eq=False)
class System:
    """Energy, gradient and Gauss–Newton matrix of curves in the coordinates of their M free nodes.

    Attributes:
        energy: (n,), float64.
        gradient: (n, M, d).
        diagonal: the blocks Hₖₖ, (n, M, d, d).
        upper: the blocks Hₖ,ₖ₊₁, (n, M − 1, d, d).
        noise: what rounding of φ can do to the energy, (n,): with ρ the rounding of one coordinate, N ρ √(2E) + N² ρ².
        floor: what it can do to the squared decrement, 2 d N² ρ², (n,).
    """

    energy: Tensor
    gradient: Tensor
    diagonal: Tensor
    upper: Tensor
    noise: Tensor
    floor: Tensor


def assemble(f: Embedding, nodes: Tensor, *, free_end: bool = False) -> System:
    """The system of curves (n, N + 1, d) whose first node is held, and the last unless ``free_end``."""
    _, size, d = nodes.shape
    free = size - 2 + free_end
    parts = [_assemble(f, some, free) for some in torch.split(nodes, max(1, f.rows(d) // free))]
    return parts[0] if len(parts) == 1 else System(*map(torch.cat, zip(*map(each, parts), strict=True)))


def sloped(f: Embedding, nodes: Tensor, system: System) -> System:
    """The system of curves (n, N + 1, d) with the matrix of another place: one pass in reverse mode, no Jacobian."""
    parts = []
    for rows in torch.split(torch.arange(len(nodes), device=nodes.device), max(1, f.rows(4) // nodes.shape[1])):
        with torch.enable_grad(), FastProducts():
            inner = nodes[rows, 1:-1].detach().requires_grad_()
            whole = torch.cat((nodes[rows, :1], inner, nodes[rows, -1:]), 1)
            values = f(whole.flatten(0, 1)).view(*whole.shape[:2], -1)
            residual = f.target.residual(values[:, :-1], values[:, 1:])
            (gradient,) = torch.autograd.grad(0.5 * (nodes.shape[1] - 1) * residual.square().sum(), inner)
        parts.append((gradient, *_sizes(values.detach(), residual.detach(), nodes.shape[2])))
    gradient, energy, noise, floor = map(torch.cat, zip(*parts, strict=True))
    return System(energy, gradient, system.diagonal, system.upper, noise, floor)


def _sizes(values: Tensor, residual: Tensor, d: int) -> tuple[Tensor, Tensor, Tensor]:
    """Energy, and what rounding can do to it and to the squared decrement, from φ (n, N + 1, D) and r (n, N, R)."""
    segments = residual.shape[1]
    energy = 0.5 * segments * residual.square().sum((1, 2), dtype=torch.float64)
    size = values.square().mean(-1, dtype=torch.float64).amax(1).sqrt()
    rounding = segments * torch.finfo(values.dtype).eps * size
    return energy, rounding * (2 * energy).sqrt() + rounding.square(), 2 * d * rounding.square()


def _assemble(f: Embedding, nodes: Tensor, free: int) -> System:
    n, size, d = nodes.shape
    segments = size - 1
    inner, jacobian = f.jacobian(nodes[:, 1 : free + 1].reshape(-1, d))
    inner, jacobian = inner.view(n, free, -1), jacobian.view(n, free, d, -1)
    held = nodes[:, ::segments] if free < segments else nodes[:, :1]
    ends = f(held.reshape(-1, d)).view(n, -1, inner.shape[-1])
    values = torch.cat((ends[:, :1], inner, ends[:, 1:]), 1)
    p, q = values[:, :-1], values[:, 1:]
    residual = f.target.residual(p, q)  # (n, N, R)
    if isinstance(f.target, Flat):
        gradient = segments * _dot(jacobian, residual[:, :free])
        gradient[:, : segments - 1] -= segments * _dot(jacobian[:, : segments - 1], residual[:, 1:])
        diagonal = segments * (jacobian @ jacobian.mT)
        diagonal[:, : segments - 1] *= 2
        upper = -segments * (jacobian[:, :-1] @ jacobian[:, 1:].mT)
    else:
        zero = torch.zeros_like(jacobian[:, :1])
        at_p = torch.cat((zero, jacobian[:, : segments - 1]), 1)
        at_q = torch.cat((jacobian, zero[:, : segments - free]), 1)
        a, b = f.target.pull(p, q, at_p, at_q)
        gradient = segments * _dot(b[:, :free], residual[:, :free])
        gradient[:, : segments - 1] += segments * _dot(a[:, 1:], residual[:, 1:])
        diagonal = segments * (b[:, :free] @ b[:, :free].mT)
        diagonal[:, : segments - 1] += segments * (a[:, 1:] @ a[:, 1:].mT)
        upper = segments * (a[:, 1:free] @ b[:, 1:free].mT)
    energy, noise, floor = _sizes(values, residual, d)
    return System(energy, gradient, diagonal, upper, noise, floor)


def _dot(tangents: Tensor, residual: Tensor) -> Tensor:
    return (tangents @ residual.unsqueeze(-1)).squeeze(-1)


@final
@dataclass(frozen=True, eq=False)
class Solution:
    """H x = −g, and gᵀ H⁻¹ g, for K right-hand sides.

    Attributes:
        step: x, (n, M, d, K).
        decrement: the squared Newton decrement gᵀ H⁻¹ g, (n, K), float64.
        positive: whether H was positive definite, (n,).
    """

    step: Tensor
    decrement: Tensor
    positive: Tensor


def solve(diagonal: Tensor, upper: Tensor, gradient: Tensor) -> Solution:
    """Block elimination from the first node to the last, and back; g is (n, M, d, K)."""
    count = gradient.shape[1]
    factors, across, halves = [], [], []
    left, right = diagonal[:, 0], -gradient[:, 0]
    positive = torch.ones(len(gradient), dtype=torch.bool, device=gradient.device)
    for k in range(count):
        factor, info = torch.linalg.cholesky_ex(left)
        positive &= info == 0
        factors.append(factor)
        if k == count - 1:
            halves.append(torch.linalg.solve_triangular(factor, right, upper=False))
            break
        both = torch.linalg.solve_triangular(factor, torch.cat((upper[:, k], right), -1), upper=False)
        across.append(both[..., : left.shape[-1]])
        halves.append(both[..., left.shape[-1] :])
        left = diagonal[:, k + 1] - across[-1].mT @ across[-1]
        right = -gradient[:, k + 1] - across[-1].mT @ halves[-1]
    decrement = torch.stack(halves, 1).square().sum((1, 2), dtype=torch.float64)
    steps = [torch.linalg.solve_triangular(factors[-1].mT, halves[-1], upper=True)]
    for factor, over, half in zip(factors[-2::-1], across[::-1], halves[-2::-1], strict=True):
        steps.append(torch.linalg.solve_triangular(factor.mT, half - over @ steps[-1], upper=True))
    return Solution(torch.stack(steps[::-1], 1), decrement, positive)


def each(record: Any) -> tuple[Any, ...]:
    """What a record holds: tensors with a row per curve, or records of these."""
    return tuple(getattr(record, field.name) for field in fields(record))


def taken(record: Any, rows: Tensor) -> Any:
    """Some rows of a record."""
    return type(record)(*(held[rows] if isinstance(held, Tensor) else taken(held, rows) for held in each(record)))


def put(record: Any, rows: Tensor, other: Any) -> None:
    """Replace some rows of a record of tensors."""
    for old, new in zip(each(record), each(other), strict=True):
        old[rows] = new
