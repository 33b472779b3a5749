"""The model: prior, likelihood and posterior together, and `Problem`, the question that a batch of rows asks."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from vaelid import checks
from vaelid.distributions import Distribution
from vaelid.errors import InputError, InputTypeError, first_line
from vaelid.fitted import PerDatum
from vaelid.likelihoods import Likelihood
from vaelid.networks.products import FastProducts
from vaelid.parts import part
from vaelid.posteriors import Posterior
from vaelid.priors import Prior
from vaelid.random import Key
from vaelid.types import Batch, Group, Trace, Transport


@final
@dataclass(frozen=True, eq=False)
class Problem:
    """The posterior inference problem of a batch of rows; made by `VAE.given`, which encodes or fits once.

    Attributes:
        model: the model that asks.
        batch: the rows, in the model's dtype.
        prior: p(z | context), a distribution value.
        start: where noise is pushed to: q(z|x), or p(z).
    """

    model: VAE
    batch: Batch
    prior: Transport
    start: Transport

    @property
    def noise_size(self) -> int:
        """k, the number of noise dimensions per row."""
        return self.model.prior.latent

    def noise(self, key: Key, samples: int, start: int = 0) -> Tensor:
        """Noise u ~ N(0, I), (samples, batch, k), a function of (key, row id, sample, dimension) alone."""
        x = self.batch.x
        return key.normal_rows(self.batch.ids(), samples, self.noise_size, start=start, dtype=x.dtype)

    def trace(self, u: Tensor) -> Trace:
        """Push noise (sample, batch, k) through the posterior and the likelihood."""
        z, log_posterior = self.start.push(u)
        log_prior = self.prior.log_prob(z)
        likelihood = self.model.decode(z, self.batch.context)
        group = Group(z, self.prior, self.start, log_prior, log_posterior)
        return Trace((group,), likelihood, likelihood.log_prob(self.batch.x, self.batch.mask))

    @property
    def centre(self) -> Tensor:
        """T(0), where noise of 0 is pushed to, (batch, latent)."""
        x = self.batch.x
        zero = torch.zeros(1, self.batch.rows, self.noise_size, dtype=x.dtype, device=x.device)
        return self.start.push(zero)[0][0]

    def log_joint(self, z: Tensor) -> Tensor:
        """log p(x, z) for z (sample, batch, latent): (sample, batch), nats."""
        likelihood = self.model.decode(z, self.batch.context)
        return self.prior.log_prob(z) + likelihood.log_prob(self.batch.x, self.batch.mask)

    def noise_of(self, z: Tensor) -> Tensor:
        """The noise (sample, batch, k) that `trace` pushes to z: the inverse transport."""
        return self.start.pull(z)


@final
@part("VAE")
class VAE(nn.Module):
    """A variational autoencoder: p(z) p(x|z), with q(z|x) to infer z.

    Args:
        prior: p(z).
        likelihood: p(x|z), holding the decoder.
        posterior: q(z|x), holding the encoder; or `PerDatum`, the default, which fits q to every row by itself.
    """

    def __init__(self, prior: Prior, likelihood: Likelihood, posterior: Posterior | PerDatum | None = None) -> None:
        super().__init__()
        posterior = PerDatum() if posterior is None else posterior
        boxes: tuple[tuple[nn.Module, type | tuple[type, ...], str], ...] = (
            (prior, Prior, "prior"),
            (likelihood, Likelihood, "likelihood"),
            (posterior, (Posterior, PerDatum), "posterior"),
        )
        for box, kind, name in boxes:
            if not isinstance(box, kind):
                raise InputTypeError(
                    f"{name}={type(box).__name__}",
                    f"a vaelid {name}",
                    f"wrap the network in one of vaelid.{name}s"
                    if name != "likelihood"
                    else "wrap the decoder: vaelid.likelihoods.Bernoulli(network)",
                )
        self.prior, self.likelihood, self.posterior = prior, likelihood, posterior

    @property
    def device(self) -> torch.device:
        """Where the parameters live, or the buffers of a model without any."""
        return self._tensor().device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the parameters, or of the buffers of a model without any."""
        return self._tensor().dtype

    def _tensor(self) -> Tensor:
        held = itertools.chain(self.parameters(), self.buffers())
        return next(tensor for tensor in held if tensor.is_floating_point())

    def given(self, batch: Batch, start: Literal["posterior", "prior"] = "posterior") -> Problem:
        """Encode the rows once, or fit q to each, and return the problem that they pose.

        ``start="prior"`` pushes noise through p(z) instead of q(z|x); nothing is encoded or fitted then.

        Raises:
            InputError: the posterior's latent size is not the prior's.
        """
        if batch.x.dtype != self.dtype:
            batch = Batch(batch.x.to(self.dtype), batch.mask, batch.context, batch.row_id, batch.weight)
        prior = self.prior_given(batch.context)
        if start == "prior":
            return Problem(self, batch, prior, prior)
        posterior = self._posterior(batch)
        if posterior.size != self.prior.latent:
            raise InputError(
                f"the posterior has {posterior.size} latents",
                f"{self.prior.latent}, as the prior has",
                "give the encoder two outputs per latent of the prior",
            )
        return Problem(self, batch, prior, posterior)

    def prior_given(self, context: Tensor | None = None) -> Transport:
        """p(z | context), context (batch, c), as a distribution value that broadcasts to (sample, batch, latent)."""
        prior: Transport = self.prior(context, None if isinstance(self.posterior, PerDatum) else self.posterior)
        return prior

    def _posterior(self, batch: Batch) -> Transport:
        if isinstance(self.posterior, PerDatum):
            with evaluating(self):  # a row's q must not depend on batch statistics or dropout
                fitted: Transport = self.posterior(batch, lambda rows: self.given(rows, start="prior"))
            return fitted
        if self.posterior.raw:
            seen = batch.x if batch.mask is None else torch.where(batch.mask, batch.x, 0)
        else:
            seen = self.likelihood.features(batch.x, batch.mask)
        encoded: Transport = self.posterior(seen, batch.context)
        return encoded

    def batch(self, x: Any, mask: Any = None, context: Any = None, row_id: Any = None, weight: Any = None) -> Batch:
        """Checked rows on the model's device, from arrays, frames or tensors (a `Batch` passes as it is).

        Cells that were not observed may hold anything, NaN included.

        Raises:
            InputError: an array is empty, ragged, not numeric, not finite, or outside the likelihood's support; an
                argument does not have one entry per row; the rows do not fit the model.
        """
        if isinstance(x, Batch):
            if any(value is not None for value in (mask, context, row_id, weight)):
                raise InputError("a Batch, and beside it a mask, context, row_id or weight", "those inside the Batch")
            return x.to(self.device)
        support = self.likelihood.support
        if mask is None:
            values = checks.array(x)
        else:
            values, seen = checks.observed(x, mask, support)
            mask = torch.from_numpy(seen)
        checks.support(values, support, type(self.likelihood).__name__)
        rows = len(values)
        if context is not None:
            context = _each_row(torch.from_numpy(checks.array(context, "context")).to(self.dtype), rows, "context", 2)
        if row_id is not None:
            row_id = _each_row(torch.as_tensor(row_id, dtype=torch.int64), rows, "row_id", 1)
        if weight is not None:
            weight = _each_row(torch.as_tensor(weight, dtype=self.dtype), rows, "weight", 1)
        batch = Batch(torch.from_numpy(values), mask, context, row_id, weight).to(self.device)
        self.check(batch)
        return batch

    @torch.no_grad()
    def check(self, batch: Batch) -> None:
        """Pass one row through every box and say which one does not fit; nothing is fitted.

        Raises:
            InputError: the encoder cannot take x, the latent sizes differ, or the decoder's events are not x's.
        """
        row = batch.take(slice(0, 1))
        event, latent = tuple(row.x.shape[1:]), self.prior.latent
        covariates = f" and {row.context.shape[1]} covariates" if row.context is not None else ""
        with evaluating(self):
            try:
                z = self._centre(row, "prior" if isinstance(self.posterior, PerDatum) else "posterior")
            except InputError:
                raise
            except _MISFIT as error:
                raise InputError(
                    f"the posterior cannot encode a row of shape {event}{covariates} to {latent} latents "
                    f"({first_line(error)})",
                    f"an encoder from {self._seen(event)}{covariates} to {latent} means and {latent} log-scales",
                ) from error
            try:
                decoded = tuple(self.decode(z, row.context).mean.shape[1:])
            except InputError:
                raise
            except _MISFIT as error:
                raise InputError(
                    f"the likelihood cannot decode {latent} latents{covariates} ({first_line(error)})",
                    f"a decoder from {latent} latents{covariates} to events of shape {event}",
                ) from error
        if decoded != event:
            raise InputError(f"the likelihood decodes to events of shape {decoded}", f"{event}, as x has")

    @torch.no_grad()
    def encode(self, x: Any, mask: Any = None, context: Any = None) -> Tensor:
        """z = T_x(0), the same at every call: for a diagonal normal the posterior's mean, (batch, latent)."""
        batch = self.batch(x, mask, context)
        with evaluating(self):
            return torch.cat([self._centre(rows) for rows in chunks(batch)])

    def decode(self, z: Tensor, context: Any = None) -> Distribution:
        """p(x|z) as a distribution value, for z (*lead, latent) and context (batch, c) where lead ends in batch."""
        if context is not None and not isinstance(context, Tensor):
            context = torch.from_numpy(checks.array(context, "context")).to(self.device, self.dtype)
        likelihood: Distribution = self.likelihood(z, context)
        return likelihood

    @torch.no_grad()
    def reconstruct(self, x: Any, mask: Any = None, context: Any = None) -> Tensor:
        """E[x|z] at z = T_x(0), in the data's own units, (batch, *event); for a categorical the mode."""
        batch = self.batch(x, mask, context)
        with evaluating(self):
            return torch.cat([self.decode(self._centre(rows), rows.context).point for rows in chunks(batch)])

    def sample(self, n: int, key: Key, context: Any = None) -> Tensor:
        """n new rows, z ~ p(z) and x ~ p(x|z), (n, *event); ``context``, if any, is (n, c).

        A row depends on the key, its number and its context alone.

        Raises:
            InputError: n is not a whole number above 0, or the context has not n rows.
        """
        return self.draw(n, key, context)[0]

    @torch.no_grad()
    def draw(self, n: int, key: Key, context: Any = None) -> tuple[Tensor, Tensor]:
        """What `sample` gives, and the latents (n, latent) behind it."""
        n = checks.positive_int(n, "the number of samples")
        if context is not None:
            values = torch.from_numpy(checks.array(context, "context"))
            context = _each_row(values.to(self.device, self.dtype), n, "context", 2)
        drawn, latents, event = [], [], None
        with evaluating(self):
            for ids in torch.split(torch.arange(n, device=self.device), CHUNK):
                u = key.fold("z").normal_rows(ids, 1, self.prior.latent, dtype=self.dtype)
                given = None if context is None else context[ids]
                z, _ = self.prior_given(given).push(u)
                event = event or self.decode(z[0, :1], None if given is None else given[:1]).mean.shape[1:]
                uniform = key.fold("x").uniform_rows(ids, 1, event.numel(), dtype=self.dtype)
                drawn.append(self.decode(z[0], given).icdf(uniform.view(-1, *event)))
                latents.append(z[0])
        return torch.cat(drawn), torch.cat(latents)

    def _seen(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of what the encoder sees of one row."""
        raw = isinstance(self.posterior, Posterior) and self.posterior.raw
        return event if raw else self.likelihood.feature_shape(event)

    def _centre(self, batch: Batch, start: Literal["posterior", "prior"] = "posterior") -> Tensor:
        return self.given(batch, start).centre


# what a network raises when its input does not fit
_MISFIT = (RuntimeError, TypeError, ValueError, LookupError, AttributeError)


def _each_row(values: Tensor, rows: int, name: str, dims: int) -> Tensor:
    if values.ndim != dims or values.shape[0] != rows:
        shape = f"({rows},)" if dims == 1 else f"({rows}, c)"
        raise InputError(f"{name} has shape {tuple(values.shape)}", f"{shape}, one entry per row")
    return values


@contextlib.contextmanager
def settled(module: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode (no dropout, fixed batch statistics), and back as it was at the end."""
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for child, training in modes:
            child.training = training


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """`settled`, and large dense layers run by the faster of two ways meanwhile, see `vaelid.networks.products`."""
    with settled(module), FastProducts():
        yield


CHUNK = 4096  # rows per pass where no gradient is kept


def chunks(batch: Batch, size: int = CHUNK) -> list[Batch]:
    """The batch in pieces of at most ``size`` rows, each row keeping its number."""
    return [batch.take(slice(start, start + size)) for start in range(0, batch.rows, size)]
