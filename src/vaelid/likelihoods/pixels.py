"""Likelihoods of equally spaced levels: discretised logistic, and mixtures of it."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from vaelid import checks, distributions
from vaelid.distributions import Distribution
from vaelid.errors import InputError
from vaelid.likelihoods import embeddings
from vaelid.likelihoods.base import Likelihood, of
from vaelid.parts import part
from vaelid.types import Support


@final
@part("likelihoods.DiscretizedLogistic")
class DiscretizedLogistic(Likelihood):
    """x on the grid low, low + step … high; the mass of each bin under a logistic whose location and log-scale the
    network gives per cell, the end bins taking the tails (Kingma et al. 2016; Salimans et al. 2017).

    Args:
        network: z → location and log-scale (two heads), in units of half the range around its centre.
        low: smallest value.
        high: largest value.
        step: distance between neighbouring values.
    """

    heads = 2
    discrete = True
    fisher_rao = True

    def __init__(self, network: nn.Module, low: float = 0.0, high: float = 255.0, step: float = 1.0) -> None:
        super().__init__()
        self.network, self.low, self.high, self.step = network, float(low), float(high), checks.positive(step, "step")
        self.support = _grid(self.low, self.high, self.step)
        self._centre, self._half = (self.low + self.high) / 2, (self.high - self.low) / 2

    def distribution(self, raw: tuple[Tensor, ...], event_dims: int) -> Distribution:
        """Discretised logistic with location and scale in the data's own units."""
        loc, log_scale = self._centre + self._half * raw[0], raw[1] + math.log(self._half / 4)
        return distributions.DiscretizedLogistic(loc, log_scale, self.low, self.high, self.step, event_dims=event_dims)

    def scaled(self, x: Tensor) -> Tensor:
        """x mapped onto [−1, 1]."""
        return (x - self._centre) / self._half

    def _coordinates(self, p: Distribution) -> Tensor:
        """2√p of every level of every cell."""
        return embeddings.finite(of(p, distributions.DiscretizedLogistic).log_probs)


@final
@part("likelihoods.DiscretizedLogisticMixture")
class DiscretizedLogisticMixture(Likelihood):
    """x on the grid low, low + step … high; each cell a mixture of discretised logistics (Salimans et al. 2017).

    The network gives logits, locations and log-scales of the components; the locations are taken around points that
    are spread evenly over the range, so that the components differ from the start.

    Args:
        network: z → per cell ``components`` logits, then as many locations, then as many log-scales, in units of half
            the range (3 · components heads).
        components: number of logistics in each cell.
        low: smallest value.
        high: largest value.
        step: distance between neighbouring values.
    """

    discrete = True
    fisher_rao = True

    def __init__(
        self, network: nn.Module, components: int = 5, low: float = 0.0, high: float = 255.0, step: float = 1.0
    ) -> None:
        super().__init__()
        self.network, self.low, self.high, self.step = network, float(low), float(high), checks.positive(step, "step")
        self.components = checks.positive_int(components, "the number of components")
        self.heads = 3 * self.components
        self.support = _grid(self.low, self.high, self.step)
        self._centre, self._half = (self.low + self.high) / 2, (self.high - self.low) / 2

    def distribution(self, raw: tuple[Tensor, ...], event_dims: int) -> Distribution:
        """The mixture with locations and scales in the data's own units."""
        logits, loc, log_scale = torch.stack(raw, dim=-1).chunk(3, dim=-1)
        spread = (2 * torch.arange(self.components, device=loc.device) + 1) / self.components - 1
        return distributions.DiscretizedLogisticMixture(
            logits,
            self._centre + self._half * (loc + spread.to(loc)),
            log_scale + math.log(self._half / 4),
            self.low,
            self.high,
            self.step,
            event_dims=event_dims,
        )

    def scaled(self, x: Tensor) -> Tensor:
        """x mapped onto [−1, 1]."""
        return (x - self._centre) / self._half

    def _coordinates(self, p: Distribution) -> Tensor:
        """2√p of every level of every cell."""
        return embeddings.finite(of(p, distributions.DiscretizedLogisticMixture).log_probs)


def _grid(low: float, high: float, step: float) -> Support:
    """The support of levels from ``low`` to ``high``.

    Raises:
        InputError: no whole number of steps lies between them.
    """
    bins = (high - low) / step
    if not (1 <= bins < math.inf and abs(bins - round(bins)) < 1e-6 * bins):
        raise InputError(f"levels from {low:g} to {high:g} by {step:g}", "a whole number of steps, at least one")
    return Support.grid(low, high, step)
