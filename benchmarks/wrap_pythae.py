"""A model of Pythae 0.1.2's, trained by Pythae, then wrapped: ``python -m benchmarks.wrap_pythae``.

Needs, beside vaelid: ``pip install tqdm imageio cloudpickle`` and ``pip install --no-deps pythae==0.1.2`` (one of the
packages that Pythae asks for does not exist for current Pythons and is never imported).

The rows are MNIST where the environment's VAELID_DATA names a folder that holds mnist.npz, else the built-in digits.
Pythae trains its own VAE on them, with binary cells under a Bernoulli and with grey ones under a Gaussian of σ = 1;
`vaelid.wrap` takes decoder and encoder as they are. Then log p(x) is estimated by importance sampling with K draws per
row twice: by Pythae's ``get_nll`` (which returns log p itself, not its negative) and by vaelid. Both are means of K
weights from the same q, so their expectations are equal; draws differ. The difference is paired over rows, and its
standard error is that of these paired differences. Last comes the decoder alone, with q fitted to every row.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pythae.models import VAE as PythaeVAE
from pythae.models import VAEConfig
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from torch import Tensor

import vaelid as vd
from vaelid.likelihoods import Bernoulli, FixedScale, Gaussian
from vaelid.wrapping import log_variance, logits

PASS = 100  # decoder rows per pass of get_nll; it draws whole passes only


def rows(train: int, test: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey images in [0, 1], (rows, 1, height, width), float32."""
    folder = os.environ.get("VAELID_DATA")
    data = vd.data.load(Path(folder) / "mnist.npz" if folder else "digits")
    order = vd.Key(0).permutation(len(data.x)).numpy()
    grey = data.x[order[: train + test]].astype(np.float32) / data.x.max()
    return grey[test:], grey[:test]


def trained(x: np.ndarray, loss: str, latent: int, epochs: int) -> PythaeVAE:
    """Pythae's VAE with its default networks, trained by its own pipeline."""
    torch.manual_seed(0)
    model = PythaeVAE(VAEConfig(input_dim=x.shape[1:], latent_dim=latent, reconstruction_loss=loss))
    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder, num_epochs=epochs, learning_rate=1e-3, per_device_train_batch_size=100, no_cuda=True
        )
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            TrainingPipeline(model=model, training_config=config)(train_data=x)
    return model.eval()


def wrapped(model: PythaeVAE, loss: str, latent: int, event: tuple[int, ...]) -> vd.VAE:
    """Its networks as a model of vaelid's: the decoder ends in a sigmoid, which is a mean for one loss of Pythae's
    and a probability for the other."""
    own: dict[str, Any] = {
        "encoder": model.encoder,
        "encoded": lambda out: log_variance((out.embedding, out.log_covariance)),
    }
    if loss == "bce":
        return vd.wrap(model.decoder, latent=latent, likelihood=Bernoulli, decoded=logits, **own)
    return vd.wrap(model.decoder, latent=latent, likelihood=lambda net: Gaussian(net, event, FixedScale(1.0)), **own)


@torch.no_grad()
def by_pythae(model: PythaeVAE, x: Tensor, samples: int) -> Tensor:
    """``get_nll`` of every row, (rows,)."""
    torch.manual_seed(1)
    return torch.tensor([model.get_nll(row[None], n_samples=samples, batch_size=PASS) for row in x])


def line(name: str, values: Tensor, seconds: float | None = None) -> None:
    se = statistics.stdev(values.tolist()) / len(values) ** 0.5
    took = "" if seconds is None else f"   {seconds:7.1f} s"
    print(f"  {name:34} {float(values.mean()):10.3f} ± {se:.3f}{took}", flush=True)


def compare(loss: str, arguments: argparse.Namespace) -> None:
    """Train, wrap, and print both estimates with their paired difference."""
    train, test = rows(arguments.train, arguments.rows)
    if loss == "bce":
        train, test = ((part > 0.5).astype(np.float32) for part in (train, test))
    model = trained(train, loss, arguments.latent, arguments.epochs)
    x, samples, latent, event = torch.from_numpy(test), arguments.samples, arguments.latent, train.shape[1:]
    ours = wrapped(model, loss, latent, event)
    print(f"\n{loss}, events {event}, {latent} latents: log p(x), {samples} draws for each of {len(x)} rows")
    started = time.perf_counter()
    theirs = by_pythae(model, x, samples)
    line("Pythae's get_nll", theirs, time.perf_counter() - started)
    started = time.perf_counter()
    found = vd.evaluate(ours, test, samples=samples)
    line("vaelid, Pythae's encoder", found.per_row.log_evidence, time.perf_counter() - started)
    gap = found.per_row.log_evidence - theirs
    se = float(gap.std()) / len(x) ** 0.5
    difference = float(gap.mean())
    print(f"  {'paired difference':34} {difference:11.4f} ± {se:.4f} = {difference / se:.1f} standard errors")
    some = slice(0, arguments.fitted)
    print(f"  of these, {arguments.fitted} rows:")
    line("vaelid, Pythae's encoder", found.per_row.log_evidence[some])
    started = time.perf_counter()
    alone = vd.evaluate(vd.VAE(ours.prior, ours.likelihood), test[some], samples=samples).per_row
    line("vaelid, q fitted to every row", alone.log_evidence, time.perf_counter() - started)
    line("ELBO, Pythae's encoder", found.per_row.elbo[some])
    line("ELBO, q fitted to every row", alone.elbo)


def main() -> None:
    """Compare under both losses of Pythae's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--train", type=int, default=1500, help="rows to train on")
    parser.add_argument("--rows", type=int, default=200, help="rows to score")
    parser.add_argument("--fitted", type=int, default=50, help="rows to fit q to")
    parser.add_argument("--latent", type=int, default=10, help="latents")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of training")
    parser.add_argument("--samples", type=int, default=1000, help=f"draws per row, a multiple of {PASS}")
    arguments = parser.parse_args()
    if arguments.samples % PASS:
        parser.error(f"--samples {arguments.samples}: get_nll draws multiples of {PASS}")
    logging.disable(logging.WARNING)
    for loss in ("bce", "mse"):
        compare(loss, arguments)


if __name__ == "__main__":
    main()
