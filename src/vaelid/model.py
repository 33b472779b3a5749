"""The model: prior, likelihood and posterior together, and `Problem`, the question that a batch of rows asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from vaelid import checks
from vaelid.distributions import Distribution
from vaelid.errors import InputError, InputTypeError
from vaelid.likelihoods import Likelihood
from vaelid.parts import part
from vaelid.posteriors import Posterior
from vaelid.priors import Prior
from vaelid.random import Key
from vaelid.types import Batch, Group, Trace, Transport


@final
@dataclass(frozen=True, eq=False)
class Problem:
    """The posterior inference problem of a batch of rows; made by `VAE.given`, which encodes once.

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
        likelihood = self.model.likelihood(z, self.batch.context)
        group = Group(z, self.prior, self.start, log_prior, log_posterior)
        return Trace((group,), likelihood, likelihood.log_prob(self.batch.x, self.batch.mask))

    def log_joint(self, z: Tensor) -> Tensor:
        """log p(x, z) for z (sample, batch, latent): (sample, batch), nats."""
        likelihood = self.model.likelihood(z, self.batch.context)
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
        posterior: q(z|x), holding the encoder.
    """

    def __init__(self, prior: Prior, likelihood: Likelihood, posterior: Posterior) -> None:
        super().__init__()
        for box, kind, name in ((prior, Prior, "prior"), (likelihood, Likelihood, "likelihood"),
                                (posterior, Posterior, "posterior")):
            if not isinstance(box, kind):
                raise InputTypeError(
                    f"{name}={type(box).__name__}", f"a vaelid {name}", f"wrap the network in one of vaelid.{name}s"
                    if name != "likelihood" else "wrap the decoder: vaelid.likelihoods.Bernoulli(network)"
                )
        self.prior, self.likelihood, self.posterior = prior, likelihood, posterior

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the parameters."""
        return next(self.parameters()).dtype

    def given(self, batch: Batch, start: Literal["posterior", "prior"] = "posterior") -> Problem:
        """Encode the rows once and return the problem that they pose.

        ``start="prior"`` pushes noise through p(z) instead of q(z|x).
        """
        if batch.x.dtype != self.dtype:
            batch = Batch(batch.x.to(self.dtype), batch.mask, batch.context, batch.row_id, batch.weight)
        prior = self.prior(batch.context)
        if start == "prior":
            return Problem(self, batch, prior, prior)
        features = self.likelihood.features(batch.x, batch.mask)
        return Problem(self, batch, prior, self.posterior(features, batch.context))

    def batch(
        self, x: Any, mask: Any = None, context: Any = None, row_id: Any = None, weight: Any = None
    ) -> Batch:
        """Checked rows on the model's device, from arrays, frames or tensors (a `Batch` passes as it is).

        Raises:
            InputError: an array is empty, ragged, not numeric, not finite, or outside the likelihood's support.
        """
        if isinstance(x, Batch):
            return x.to(self.device)
        if mask is not None:
            mask = torch.as_tensor(checks.array(mask, "mask"), dtype=torch.bool)
            x = torch.where(mask, torch.as_tensor(x), torch.zeros((), dtype=torch.as_tensor(x).dtype))
        values = checks.array(x, "x")
        checks.support(values, self.likelihood.support, type(self.likelihood).__name__)
        return Batch(
            torch.from_numpy(values),
            mask,
            None if context is None else torch.from_numpy(checks.array(context, "context")).to(self.dtype),
            None if row_id is None else torch.as_tensor(row_id, dtype=torch.int64),
            None if weight is None else torch.as_tensor(weight, dtype=self.dtype),
        ).to(self.device)

    @torch.no_grad()
    def check(self, batch: Batch) -> None:
        """Pass one row through every box and say which one does not fit.

        Raises:
            InputError: the encoder cannot take x, the latent sizes differ, or the decoder's events are not x's.
        """
        row = batch.take(slice(0, 1))
        event, latent = tuple(row.x.shape[1:]), self.prior.latent
        zero = torch.zeros(1, 1, latent, device=self.device, dtype=self.dtype)
        try:
            problem = self.given(row)
            z = problem.start.push(zero)[0]
        except RuntimeError as error:
            raise InputError(
                f"the posterior cannot encode a row of shape {event} to {latent} latents ({str(error).splitlines()[0]})",
                f"an encoder from {self.likelihood.feature_shape(event)} to {latent} means and {latent} log-scales",
            ) from error
        if z.shape[-1] != latent:
            raise InputError(f"the posterior has {z.shape[-1]} latents", f"{latent}, as the prior has")
        try:
            decoded = tuple(self.decode(z, row.context).mean.shape[2:])
        except RuntimeError as error:
            raise InputError(
                f"the likelihood cannot decode {latent} latents ({str(error).splitlines()[0]})",
                f"a decoder from {latent} latents to events of shape {event}",
            ) from error
        if decoded != event:
            raise InputError(f"the likelihood decodes to events of shape {decoded}", f"{event}, as x has")

    @torch.no_grad()
    def encode(self, x: Any, mask: Any = None, context: Any = None) -> Tensor:
        """z = T_x(0), the same at every call: for a diagonal normal the posterior's mean, (batch, latent)."""
        batch = self.batch(x, mask, context)
        return torch.cat([self._centre(rows) for rows in chunks(batch)])

    def decode(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        """p(x|z) as a distribution value, for z (*lead, latent)."""
        likelihood: Distribution = self.likelihood(z, context)
        return likelihood

    @torch.no_grad()
    def reconstruct(self, x: Any, mask: Any = None, context: Any = None) -> Tensor:
        """E[x | z] at z = T_x(0), in the data's own units, (batch, *event)."""
        batch = self.batch(x, mask, context)
        return torch.cat([self.decode(self._centre(rows), rows.context).mean for rows in chunks(batch)])

    @torch.no_grad()
    def sample(self, n: int, key: Key, context: Tensor | None = None) -> Tensor:
        """n new rows, z ~ p(z) and x ~ p(x|z), (n, *event)."""
        n = checks.positive_int(n, "the number of samples")
        rows = torch.arange(n, device=self.device)
        drawn = []
        for ids in rows.split(CHUNK):
            u = key.fold("z").normal_rows(ids, 1, self.prior.latent, dtype=self.dtype)
            given = None if context is None else context[ids]
            z, _ = self.prior(given).push(u)
            likelihood = self.decode(z[0], given)
            cells = likelihood.mean.shape[1:].numel()
            uniform = key.fold("x").uniform_rows(ids, 1, cells, dtype=self.dtype)
            drawn.append(likelihood.icdf(uniform[0].view_as(likelihood.mean)))
        return torch.cat(drawn)

    def _centre(self, batch: Batch) -> Tensor:
        problem = self.given(batch)
        zero = torch.zeros(1, batch.rows, problem.noise_size, device=self.device, dtype=self.dtype)
        return problem.start.push(zero)[0][0]


CHUNK = 4096  # rows per pass where no gradient is kept


def chunks(batch: Batch, size: int = CHUNK) -> list[Batch]:
    """The batch in pieces of at most ``size`` rows, each row keeping its number."""
    return [batch.take(slice(start, start + size)) for start in range(0, batch.rows, size)]
