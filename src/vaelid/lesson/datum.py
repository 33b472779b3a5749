"""One row of data before a model with two latents: what the figures ask about."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, final

import numpy as np
import torch
from torch import Tensor

from vaelid.distributions import Normal
from vaelid.errors import InputError
from vaelid.evidence.quadrature import Quadrature, quadrature
from vaelid.lesson.ellipse import Ellipse, expectation
from vaelid.model import VAE, Problem, evaluating
from vaelid.random import Key
from vaelid.transports import FullNormal
from vaelid.types import Batch

KEY = Key(0).fold("lesson")  # names the noise of every figure
SIDE = 200  # nodes along an axis for log p(x)
ORDERS = (40, 33, 26)  # of the Gauss–Hermite rules: that of the number, and those of its error
DRAWS = 4096  # from a q that is no normal
PASS = 4096  # decoder rows per pass


@final
@dataclass(frozen=True, eq=False)
class Datum:
    """A row with the posterior inference problem that it poses; everything is in nats, float64.

    Attributes:
        model: a model with two latents, in evaluation mode.
        batch: the one row.
        problem: its problem, start at q(z|x).
    """

    model: VAE
    batch: Batch
    problem: Problem

    @classmethod
    def of(cls, model: VAE, batch: Batch) -> Self:
        """Encode the row.

        Raises:
            InputError: another number of latents than two, or of rows than one.
        """
        if model.prior.latent != 2 or batch.rows != 1:
            raise InputError(
                f"{batch.rows} rows before a model with {model.prior.latent} latents", "one row, 2 latents"
            )
        with torch.no_grad(), evaluating(model):
            return cls(model, batch, model.given(batch))

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z), (n,), for z (n, 2)."""
        return self._each(z, self.problem.prior.log_prob)

    def log_likelihood(self, z: Tensor) -> Tensor:
        """log p(x|z), (n,), for z (n, 2)."""
        rows = self.problem.batch

        def one(z: Tensor) -> Tensor:
            return self.model.decode(z, rows.context).log_prob(rows.x, rows.mask)

        return self._each(z, one)

    def log_joint(self, z: Tensor) -> Tensor:
        """log p(x, z), (n,), for z (n, 2)."""
        return self._each(z, self.problem.log_joint)

    def slope(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x, z), (n,), and its gradient by z, (n, 2), for z (n, 2)."""
        with torch.enable_grad(), evaluating(self.model):
            at = z.detach().to(self.problem.batch.x).requires_grad_()
            value = self.problem.log_joint(at.unsqueeze(1))[:, 0]
            (gradient,) = torch.autograd.grad(value.sum(), at)
        return value.detach().double().cpu(), gradient.double().cpu()

    @functools.cached_property
    def evidence(self) -> Quadrature:
        """log p(x) by `SIDE` × `SIDE` nodes."""
        return quadrature(self.model, self.batch, side=SIDE)

    @property
    def log_evidence(self) -> tuple[float, float]:
        """log p(x) and how far it may be off."""
        return float(self.evidence.log_evidence[0]), float(self.evidence.error[0])

    @functools.cached_property
    def draws(self) -> tuple[Tensor, Tensor]:
        """`DRAWS` draws from q(z|x), (n, 2), and log q there, (n,)."""
        with torch.no_grad():
            z, log_q = self.problem.start.push(self.problem.noise(KEY.fold("q"), DRAWS))
        return z[:, 0].double().cpu(), log_q[:, 0].double().cpu()

    @functools.cached_property
    def normal(self) -> bool:
        """Whether q(z|x) is a normal."""
        return isinstance(self.problem.start, Normal | FullNormal)

    @functools.cached_property
    def q(self) -> Ellipse:
        """q(z|x) where it is a normal, else the normal with the mean and covariance of `DRAWS` draws from it."""
        match self.problem.start:
            case Normal(loc=loc, scale=scale):
                mean, covariance = loc[0], torch.diag(scale[0].square())
            case FullNormal(loc=loc, scale_tril=root):
                mean, covariance = loc[0], root[0] @ root[0].T
            case _:
                mean, covariance = self.draws[0].mean(0), torch.cov(self.draws[0].T)
        return Ellipse.from_moments(
            mean.numpy(force=True).astype(np.float64), covariance.numpy(force=True).astype(np.float64)
        )

    def elbo(self, q: Ellipse) -> tuple[float, float]:
        """E_q log p(x, z) by Gauss–Hermite nodes plus the entropy of q, and how far that may be off."""
        value, error = expectation(q, self.log_joint, ORDERS)
        return value + q.entropy, error + torch.finfo(self.model.dtype).eps * abs(value)

    @torch.no_grad()
    def _each(self, z: Tensor, density: Callable[[Tensor], Tensor]) -> Tensor:
        at = z.to(self.problem.batch.x).unsqueeze(1)
        with evaluating(self.model):
            return torch.cat([density(some)[:, 0].double().cpu() for some in torch.split(at, PASS)])
