"""Families of q for one row: normals with independent or correlated dimensions, and a flow over the latter."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from vaelid import checks
from vaelid.distributions import Normal
from vaelid.random import Key
from vaelid.transports import FullNormal
from vaelid.types import Transport

Parameters = tuple[Tensor, ...]  # of every row's q, (batch, …) each

UNIT = 0.3  # of a flow's weights in a search, over √d
CAP = 2.0  # largest |log scale| of a coupling


class Family(abc.ABC):
    """A set of distributions over z, from which every row takes its own; frozen, without state."""

    @property
    @abc.abstractmethod
    def origin(self) -> Family | None:
        """A family of normals whose best member is one of the places where the search in this one may begin."""

    @abc.abstractmethod
    def near(self, q: Normal | FullNormal, key: Key) -> Parameters:
        """The member that is q, or where q is none the closest one; ``key`` names initial weights."""

    @abc.abstractmethod
    def value(self, parameters: Parameters) -> Transport:
        """The distributions of the rows."""

    @abc.abstractmethod
    def free(self, parameters: Parameters) -> Parameters:
        """What a search moves, at its beginning."""

    @abc.abstractmethod
    def moved(self, parameters: Parameters, free: Parameters) -> Parameters:
        """The parameters after the search moved ``free``; its units are the scale of the q it set out from."""


@final
@dataclass(frozen=True)
class Diagonal(Family):
    """N(m, diag s²). Its best member for a normal posterior of precision Λ has s_i² = 1 / Λ_ii, and a gap of
    ½ (Σ log Λ_ii − log |Λ|).
    """

    @property
    def origin(self) -> Full:
        """The full normals: in their coordinates a mean is found however strongly the latents are correlated."""
        return Full()

    def near(self, q: Normal | FullNormal, key: Key) -> Parameters:
        """q, or the best diagonal normal for q as the posterior."""
        if isinstance(q, Normal):
            return q.loc, q.scale
        unit = torch.eye(q.size, dtype=q.loc.dtype, device=q.loc.device)
        inverse = torch.linalg.solve_triangular(q.scale_tril, unit, upper=False)
        return q.loc, inverse.square().sum(-2).rsqrt()

    def value(self, parameters: Parameters) -> Normal:
        """N(m, diag s²), parameters (batch, d)."""
        loc, scale = parameters
        return Normal(loc, scale)

    def free(self, parameters: Parameters) -> Parameters:
        """A step of m in units of s, and one of log s."""
        return tuple(torch.zeros_like(parameter) for parameter in parameters)

    def moved(self, parameters: Parameters, free: Parameters) -> Parameters:
        """m + s v and s e^ρ."""
        (loc, scale), (step, growth) = parameters, free
        return loc + scale * step, scale * growth.exp()


@final
@dataclass(frozen=True)
class Full(Family):
    """N(m, L Lᵀ), L lower triangular: what is left of the gap is that the posterior is no normal."""

    origin = None

    def near(self, q: Normal | FullNormal, key: Key) -> Parameters:
        """q."""
        return q.loc, q.scale.diag_embed() if isinstance(q, Normal) else q.scale_tril

    def value(self, parameters: Parameters) -> FullNormal:
        """N(m, L Lᵀ), parameters (batch, d) and (batch, d, d)."""
        loc, tril = parameters
        return FullNormal(loc, tril)

    def free(self, parameters: Parameters) -> Parameters:
        """A step of m, one of the log diagonal, and what comes below it, in the coordinates L⁻¹ (z − m)."""
        loc, tril = parameters
        return torch.zeros_like(loc), torch.zeros_like(loc), torch.zeros_like(tril)

    def moved(self, parameters: Parameters, free: Parameters) -> Parameters:
        """m + L v and L (diag e^ρ + A / √d): without the root a step of so many entries would be long."""
        (loc, tril), (step, growth, below) = parameters, free
        factor = growth.exp().diag_embed() + below.tril(-1) / math.sqrt(loc.shape[-1])
        return loc + (tril @ step.unsqueeze(-1)).squeeze(-1), tril @ factor


@final
@dataclass(frozen=True)
class Flow(Family):
    """z = m + L f(u), f a `Coupled` flow with weights of each row's own; it begins as the best full normal.

    Attributes:
        layers: couplings, none where d = 1.
        hidden: hidden units of each coupling's network.
    """

    layers: int = 4
    hidden: int = 8

    def __post_init__(self) -> None:
        checks.positive_int(self.layers, "layers", minimum=0)
        checks.positive_int(self.hidden, "hidden")

    @property
    def origin(self) -> Full:
        """The full normals."""
        return Full()

    def near(self, q: Normal | FullNormal, key: Key) -> Parameters:
        """q: f is the identity, with the same first layers in every row."""
        loc, tril = Full().near(q, key)
        rows, size = loc.shape
        given = size // 2
        weights = [torch.zeros_like(loc), torch.zeros_like(loc)]
        for index in range(self.layers if size > 1 else 0):
            draws = key.fold("weights", index).normal((self.hidden, given + 1), dtype=loc.dtype).to(loc.device)
            draws[:, :given] /= math.sqrt(given)
            weights.append(draws.expand(rows, -1, -1).clone())
            weights.append(loc.new_zeros(rows, 2 * (size - given), self.hidden + 1))
        return loc, tril, *weights

    def value(self, parameters: Parameters) -> Coupled:
        """The flow of every row."""
        loc, tril, skew, tail, *weights = parameters
        return Coupled(FullNormal(loc, tril), skew, tail, tuple(weights))

    def free(self, parameters: Parameters) -> Parameters:
        """That of a full normal, and f's weights."""
        return *Full().free(parameters[:2]), *(torch.zeros_like(weight) for weight in parameters[2:])

    def moved(self, parameters: Parameters, free: Parameters) -> Parameters:
        """The full normal moved, and the weights by `UNIT` / √d of what is free."""
        unit = UNIT / math.sqrt(parameters[0].shape[-1])
        weights = (weight + unit * step for weight, step in zip(parameters[2:], free[3:], strict=True))
        return *Full().moved(parameters[:2], free[:3]), *weights


@final
@dataclass(frozen=True, eq=False)
class Coupled:
    """z = m + L f(u), every map of f with an inverse as cheap as itself, and parameters of each row's own.

    First y = sinh(e^τ asinh(u) + ε) in every coordinate, which skews it and changes its tails (Jones and Pewsey 2009);
    then affine couplings y_b = x_b e^s + t, y_a = x_a, where s and t come from x_a by one hidden layer of tanh
    (Dinh et al. 2017) and |s| < `CAP`. Each coupling takes another half of the coordinates for a.

    Attributes:
        outer: N(m, L Lᵀ), parameters (batch, d) and (batch, d, d).
        skew: ε, (batch, d).
        tail: τ, (batch, d).
        weights: per coupling the first layer (batch, hidden, a + 1) and the second (batch, 2 b, hidden + 1), offsets in
            the last columns.
    """

    outer: FullNormal
    skew: Tensor
    tail: Tensor
    weights: Parameters

    @property
    def size(self) -> int:
        """d, the number of latents."""
        return self.outer.size

    def push(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """z, (sample, batch, d), and log q(z), (sample, batch), nats."""
        y = torch.sinh(self.tail.exp() * torch.asinh(u) + self.skew)
        log_det = self._bent(u, y)
        for index in range(len(self.weights) // 2):
            a, b = self._split(y, index)
            log_scale, offset = self._coefficients(a, index)
            y = self._join(a, b * log_scale.exp() + offset, index)
            log_det = log_det + log_scale.sum(-1)
        z, _ = self.outer.push(y)
        return z, self._log_density(u, log_det)

    def pull(self, z: Tensor) -> Tensor:
        """u = f⁻¹(L⁻¹ (z − m)), (sample, batch, d)."""
        return self._inverse(z)[0]

    def log_prob(self, x: Tensor) -> Tensor:
        """log q(z), (sample, batch), nats."""
        return self._log_density(*self._inverse(x))

    def detach(self) -> Coupled:
        """The same flow with its parameters cut from the graph."""
        weights = tuple(weight.detach() for weight in self.weights)
        return Coupled(self.outer.detach(), self.skew.detach(), self.tail.detach(), weights)

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """u and log |∂f/∂u| there."""
        y = self.outer.pull(z)
        log_det = torch.zeros_like(y[..., 0])
        for index in reversed(range(len(self.weights) // 2)):
            a, b = self._split(y, index)
            log_scale, offset = self._coefficients(a, index)
            y = self._join(a, (b - offset) * (-log_scale).exp(), index)
            log_det = log_det + log_scale.sum(-1)
        u = torch.sinh((torch.asinh(y) - self.skew) * (-self.tail).exp())
        return u, log_det + self._bent(u, y)

    def _log_density(self, u: Tensor, log_det: Tensor) -> Tensor:
        constant = 0.5 * self.size * math.log(2 * math.pi)
        return -0.5 * u.square().sum(-1) - constant - log_det - self.outer.scale.log().sum(-1)

    def _bent(self, u: Tensor, y: Tensor) -> Tensor:
        """log |∂y/∂u| of the first map, (sample, batch)."""
        return (self.tail + 0.5 * (y.square().log1p() - u.square().log1p())).sum(-1)

    def _coefficients(self, a: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """s and t of a coupling, (sample, batch, b) each."""
        first, second = self.weights[2 * index], self.weights[2 * index + 1]
        hidden = torch.tanh(torch.einsum("rhj,srj->srh", first[..., :-1], a) + first[..., -1])
        raw, offset = (torch.einsum("rih,srh->sri", second[..., :-1], hidden) + second[..., -1]).chunk(2, -1)
        return CAP * torch.tanh(raw / CAP), offset

    def _split(self, y: Tensor, index: int) -> tuple[Tensor, Tensor]:
        half = self.size // 2
        rolled = y.roll(-self._turn(index), -1)
        return rolled[..., :half], rolled[..., half:]

    def _join(self, a: Tensor, b: Tensor, index: int) -> Tensor:
        return torch.cat((a, b), -1).roll(self._turn(index), -1)

    def _turn(self, index: int) -> int:
        """Where the half of a coupling begins: one half, the other, and from the third on halves of both."""
        return index * (self.size // 2) + index // 2 * (self.size // 4)
