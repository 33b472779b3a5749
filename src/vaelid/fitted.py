"""q(z|x) without an encoder: fitted to every row by itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol, final

import torch
from torch import Tensor, nn

from vaelid import checks
from vaelid.distributions import Normal
from vaelid.errors import InputError
from vaelid.parts import part
from vaelid.random import Key
from vaelid.types import Batch, Transport

KEY = Key(0).fold("fitted")  # names the noise of every fit: the same row and model give the same q
SCALES = tuple(math.exp(-power) for power in range(8))  # σ that a fit may start from
DECODER_ROWS = 2048  # decoder rows per pass, all activations of which are kept for the gradient
BETAS = (0.9, 0.99)  # Adam's memory: short, so that the steep way to a narrow posterior is soon forgotten
END = 1e-3  # where the rate ends, as a share of the full one


class Posed(Protocol):
    """The problem that some rows pose, as `vaelid.model.Problem` states it."""

    @property
    def prior(self) -> Transport:
        """p(z)."""

    def log_joint(self, z: Tensor) -> Tensor:
        """log p(x, z) for z (sample, batch, latent): (sample, batch), nats."""


@final
@part("fitted.PerDatum")
class PerDatum(nn.Module):
    """q(z|x) = N(m, diag s²), where m and s are a row's own and maximise its ELBO (no encoder, no amortisation gap).

    The fit starts at the best of ``draws`` draws from the prior by log p(x, z), with the best σ of `SCALES`, the same
    in every dimension, by ELBO. Then Adam climbs for ``steps`` steps under a rate that falls to a thousandth along a
    cosine. Its gradient is E_u ∇_(m, s) [log p(x, z) − log q(z)], z = m + s ⊙ u, through z alone (Roeder et al.
    2017): where q is the exact posterior it is 0 for every u, so that the fit then ends there and not near it. Every
    step has fresh noise in pairs ±u; an ELBO under the same few draws throughout has its maximum elsewhere.

    The noise is a function of (row id, step) alone, so q is the same at every call, and does not depend on the rows
    fitted beside it (to rounding). Rows are fitted in pieces of bounded memory. The cost is that of
    ``draws + 16 · pairs + 2 · pairs · steps`` decoder rows per row of data, the last of them with a gradient: 1296 by
    default, anew whenever a model is asked about rows. Such a model is not trained: every step would cost as much.

    Args:
        steps: steps of Adam.
        pairs: pairs of draws ±u per step.
        draws: draws from the prior to start from.
        rate: Adam's rate at the first step, in units of z and of log s.
    """

    def __init__(self, steps: int = 300, pairs: int = 2, draws: int = 64, rate: float = 0.1) -> None:
        super().__init__()
        self.steps, self.pairs = checks.positive_int(steps, "steps"), checks.positive_int(pairs, "pairs")
        self.draws, self.rate = checks.positive_int(draws, "draws"), checks.positive(rate, "rate")

    @property
    def cost(self) -> int:
        """Decoder rows per row of data."""
        return self.draws + 2 * self.pairs * (len(SCALES) + self.steps)

    def forward(self, batch: Batch, pose: Callable[[Batch], Posed]) -> Normal:
        """q for every row, with parameters (batch, latent) that carry no gradient; no other tensor is touched.

        Args:
            batch: the rows.
            pose: the problem that some of them pose.

        Raises:
            InputError: called inside ``torch.inference_mode()``, where there are no gradients to climb.
        """
        if torch.is_inference_mode_enabled():
            raise InputError(
                "a q to be fitted inside torch.inference_mode()", "gradients", "use torch.no_grad() instead"
            )
        rows = max(1, DECODER_ROWS // (2 * self.pairs))
        pieces = [self._fit(batch.take(slice(first, first + rows)), pose) for first in range(0, batch.rows, rows)]
        loc, scale = (torch.cat(column) for column in zip(*pieces, strict=True))
        return Normal(loc, scale)

    def _fit(self, batch: Batch, pose: Callable[[Batch], Posed]) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            posed = pose(batch)
            loc = self._start(posed, batch)
            log_scale = self._scale(posed, batch, loc).log().unsqueeze(-1).repeat(1, loc.shape[-1])

        def noise(step: int) -> Tensor:
            return self._noise("step", batch, loc, step)

        climb((loc, log_scale), lambda: Normal(loc, log_scale.exp()), posed, noise, self.steps, self.rate)
        return loc, log_scale.exp()

    def _start(self, posed: Posed, batch: Batch) -> Tensor:
        """The draw from the prior with the largest log p(x, z), (batch, latent)."""
        u = KEY.fold("draws").normal_rows(batch.ids(), self.draws, posed.prior.size, dtype=batch.x.dtype)
        z, _ = posed.prior.push(u)
        height = torch.cat([posed.log_joint(some) for some in torch.split(z, 2 * self.pairs)])
        best = height.nan_to_num(nan=-math.inf).argmax(0)
        return z[best, torch.arange(batch.rows, device=z.device)]

    def _scale(self, posed: Posed, batch: Batch, loc: Tensor) -> Tensor:
        """The σ of `SCALES` with the largest ELBO around ``loc``, (batch,)."""
        scales = torch.tensor(SCALES, dtype=loc.dtype, device=loc.device)
        u = self._noise("scale", batch, loc)
        height = torch.stack([posed.log_joint(loc + scale * u).mean(0) for scale in scales])
        elbo = height + loc.shape[-1] * scales.log().unsqueeze(-1)
        return scales[elbo.nan_to_num(nan=-math.inf).argmax(0)]

    def _noise(self, name: str, batch: Batch, loc: Tensor, step: int = 0) -> Tensor:
        """Noise in pairs ±u, (2 · pairs, batch, latent)."""
        key = KEY.fold(name)
        u = key.normal_rows(batch.ids(), self.pairs, loc.shape[-1], start=step * self.pairs, dtype=loc.dtype)
        return torch.cat((u, -u))


def climb(
    free: Sequence[Tensor],
    build: Callable[[], Transport],
    posed: Posed,
    noise: Callable[[int], Tensor],
    steps: int,
    rate: float,
) -> None:
    """Move ``free`` in place up the ELBO of each row's q, by Adam under a rate that falls along a cosine.

    The gradient is that of log p(x, z) − log q(z) through z alone (Roeder et al. 2017), averaged over draws. Rows do
    not touch each other: one whose densities are not finite spoils itself alone.

    Args:
        free: the parameters, (batch, …) each.
        build: q at their present values.
        posed: the rows' problem.
        noise: noise of a step, (sample, batch, latent).
        steps: steps of Adam.
        rate: Adam's rate at the first step.
    """
    with torch.enable_grad():
        for parameter in free:
            parameter.requires_grad_()
        adam = torch.optim.Adam(free, betas=BETAS, maximize=True)
        for step in range(steps):
            adam.param_groups[0]["lr"] = rate * (END + (1 - END) * 0.5 * (1 + math.cos(math.pi * step / steps)))
            q = build()
            z, _ = q.push(noise(step))
            gain = posed.log_joint(z) - q.detach().log_prob(z)
            # the gradients of these alone: those of the model's parameters are nobody's business here
            gradients = torch.autograd.grad(gain.mean(0).sum(), tuple(free))
            for parameter, gradient in zip(free, gradients, strict=True):
                parameter.grad = gradient
            adam.step()
    for parameter in free:
        parameter.requires_grad_(False)
        parameter.grad = None
