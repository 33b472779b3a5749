"""One contestant in a process of its own: ``python -m benchmarks.contestants train|score NAME SHAPE``.

It gets ready (compiles, warms up), says so, and then answers every line on its input with the seconds of one more
epoch of ``Shape.steps`` steps on `networks.BATCH` rows, or of scoring `SCORED` rows once more.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.networks import BATCH, RATE, SHAPES, Shape

Epoch = Callable[[], Any]


def vaelid_model(shape: Shape) -> Any:
    import torch

    import vaelid as vd

    torch.manual_seed(0)
    if shape.convolutional:
        decoder = vd.networks.ConvDecoder(shape.latent, shape.event)
        encoder = vd.networks.ConvEncoder(shape.event, shape.latent)
    else:
        decoder = vd.networks.MLP(shape.latent, shape.event, shape.hidden[::-1])
        encoder = vd.networks.MLP(shape.event, shape.latent, shape.hidden, heads=2)
    prior, posterior = vd.priors.StandardNormal(shape.latent), vd.posteriors.DiagonalNormal(encoder)
    return vd.VAE(prior, vd.likelihoods.Bernoulli(decoder), posterior)


def vaelid(shape: Shape, compiled: bool | None = None) -> Epoch:
    """The loop that users get, with everything it does: validation (on one batch), recovery, events."""
    import vaelid as vd

    model, x = vaelid_model(shape), shape.rows()
    held_out = np.concatenate((x, x[:BATCH]))
    parts = vd.data.Split(np.arange(len(x)), np.arange(len(x), len(held_out)), np.arange(0))
    settings = vd.Settings(
        epochs=100_000, batch_size=BATCH, learning_rate=RATE, patience=0, compile=compiled, plateau=100_000
    )
    stream = vd.training.events(model, held_out, settings=settings, split_rows=parts)

    def epoch() -> None:
        for event in stream:
            if isinstance(event, vd.training.Compiled) and event.failure:
                raise RuntimeError(event.failure)
            if isinstance(event, vd.training.EpochDone):
                return

    return epoch


def vaelid_eager(shape: Shape) -> Epoch:
    return vaelid(shape, compiled=False)


def pytorch(shape: Shape) -> Epoch:
    """What one writes by hand: data in memory, fused Adam, no look at the loss."""
    import torch
    from torch.nn import functional

    model = vaelid_model(shape)
    encoder, decoder = model.posterior.network, model.likelihood.network
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=True)
    x = torch.from_numpy(shape.rows())

    def epoch() -> None:
        for rows in torch.randperm(len(x)).split(BATCH):
            batch = x[rows]
            mean, log_scale = encoder(batch).chunk(2, 1)
            scale = log_scale.exp()
            logits = decoder(mean + scale * torch.randn_like(scale))
            loss = functional.binary_cross_entropy_with_logits(logits, batch, reduction="sum")
            loss = (loss + 0.5 * (scale.square() + mean.square() - 1 - 2 * log_scale).sum()) / len(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


def pythae(shape: Shape) -> Epoch:
    """Pythae's own trainer and loader; its optimiser is made fused, which it does not do by itself."""
    import logging
    import tempfile

    import torch
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    logging.getLogger("pythae").setLevel(logging.ERROR)
    config = BaseTrainerConfig(
        output_dir=tempfile.mkdtemp(),
        num_epochs=1,
        learning_rate=RATE,
        per_device_train_batch_size=BATCH,
        optimizer_cls="Adam",
        no_cuda=True,
    )
    x = torch.from_numpy(shape.rows())
    data = BaseDataset(x, torch.ones(len(x)))
    trainer = BaseTrainer(pythae_model(shape), data, training_config=config)
    trainer.prepare_training()
    return lambda: trainer.train_step(1)


def pythae_model(shape: Shape) -> Any:
    """Pythae's VAE over the same networks."""
    import torch
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    ours = vaelid_model(shape)

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = ours.posterior.network

        def forward(self, x: Any) -> Any:
            mean, log_scale = self.network(x).chunk(2, 1)
            return ModelOutput(embedding=mean, log_covariance=2 * log_scale)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = ours.likelihood.network

        def forward(self, z: Any) -> Any:
            return ModelOutput(reconstruction=torch.sigmoid(self.network(z)))

    config = VAEConfig(input_dim=shape.event, latent_dim=shape.latent, reconstruction_loss="bce")
    return VAE(config, Encoder(), Decoder())


def jax(shape: Shape) -> Epoch:
    """A whole epoch as one `lax.scan`, written by hand, with exact GELU as in the other networks."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    x, layout = jnp.asarray(shape.rows()), ("NHWC", "HWIO", "NHWC")
    if shape.convolutional:
        x = jnp.moveaxis(x, 1, -1)

    def gelu(h: Any) -> Any:
        return jax.nn.gelu(h, approximate=False)

    def dense(sizes: tuple[int, ...], key: Any) -> list[Any]:
        keys = jax.random.split(key, len(sizes) - 1)
        sides = zip(keys, sizes[:-1], sizes[1:], strict=True)
        return [(jax.random.normal(k, (a, b)) / np.sqrt(a), jnp.zeros(b)) for k, a, b in sides]

    def convolution(size: int, a: int, b: int, key: Any) -> Any:
        return jax.random.normal(key, (size, size, a, b)) / np.sqrt(size * size * a), jnp.zeros(b)

    def mlp(layers: list[Any], h: Any) -> Any:
        for weight, bias in layers[:-1]:
            h = gelu(h @ weight + bias)
        weight, bias = layers[-1]
        return h @ weight + bias

    key = jax.random.PRNGKey(0)
    if shape.convolutional:
        parameters: Any = {
            "down": [convolution(3, 1, 32, key), convolution(3, 32, 64, key)],
            "encoder": dense((7 * 7 * 64, 256, 2 * shape.latent), key),
            "decoder": dense((shape.latent, 256, 7 * 7 * 64), key),
            "up": [convolution(4, 64, 32, key), convolution(4, 32, 1, key)],
        }
    else:
        sizes = (*shape.event, *shape.hidden)
        parameters = {
            "encoder": dense((*sizes, 2 * shape.latent), key),
            "decoder": dense((shape.latent, *sizes[::-1]), key),
        }

    def encode(p: Any, h: Any) -> Any:
        for weight, bias in p.get("down", []):
            strides, padding = (2, 2), ((1, 1), (1, 1))
            h = gelu(lax.conv_general_dilated(h, weight, strides, padding, dimension_numbers=layout) + bias)
        return mlp(p["encoder"], h.reshape(BATCH, -1))

    def decode(p: Any, z: Any) -> Any:
        h = mlp(p["decoder"], z)
        for level, (weight, bias) in enumerate(p.get("up", [])):
            h = gelu(h.reshape(BATCH, 7, 7, 64)) if level == 0 else gelu(h)
            h = lax.conv_transpose(h, weight, (2, 2), "SAME", dimension_numbers=layout) + bias
        return h

    def loss(p: Any, rows: Any, u: Any) -> Any:
        mean, log_scale = jnp.split(encode(p, rows), 2, -1)
        scale = jnp.exp(log_scale)
        logits = decode(p, mean + scale * u)
        reconstruction = jax.nn.log_sigmoid((2 * rows - 1) * logits).reshape(BATCH, -1).sum(-1)
        rate = 0.5 * (scale**2 + mean**2 - 1 - 2 * log_scale).sum(-1)
        return -(reconstruction - rate).mean()

    def step(state: Any, inputs: Any) -> Any:
        p, first, second, count = state
        rows, k = inputs
        value, gradient = jax.value_and_grad(loss)(p, x[rows], jax.random.normal(k, (BATCH, shape.latent)))
        count = count + 1
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradient)
        one, two = 1 - 0.9**count, 1 - 0.999**count
        p = jax.tree.map(lambda w, m, v: w - RATE * (m / one) / (jnp.sqrt(v / two) + 1e-8), p, first, second)
        return (p, first, second, count), value

    @jax.jit
    def run(state: Any, k: Any) -> Any:
        order = jax.random.permutation(k, len(x)).reshape(shape.steps, BATCH)
        return lax.scan(step, state, (order, jax.random.split(k, shape.steps)))

    zeros = jax.tree.map(jnp.zeros_like, parameters)
    held = {"state": (parameters, zeros, zeros, jnp.zeros(())), "epoch": 0}

    def epoch() -> None:
        held["epoch"] += 1
        held["state"], values = run(held["state"], jax.random.PRNGKey(held["epoch"]))
        values.block_until_ready()

    return epoch


def floor(shape: Shape) -> Epoch:
    """The bare products or convolutions of a step, forward and backward, and the bytes that Adam moves: no more."""
    import torch
    from torch import nn

    from vaelid.networks import products

    model = vaelid_model(shape)
    seen: dict[nn.Module, torch.Tensor] = {}
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
    hooks = [m.register_forward_pre_hook(lambda m, a: seen.__setitem__(m, a[0].detach().clone())) for m in layers]
    model.decode(model.encode(shape.rows()[:BATCH]))
    for hook in hooks:
        hook.remove()
    first = next(m for m in model.posterior.modules() if m in seen)  # the data need no gradient
    weights = torch.cat([p.detach().flatten() for p in model.parameters()]).requires_grad_()
    weights.grad = torch.zeros_like(weights)
    optimizer = torch.optim.Adam([weights], RATE, fused=True)

    def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        large = a.shape[0] * a.shape[1] * b.shape[1] >= products.LARGE
        return products.mm(a, b) if large and products.available() else a @ b

    def dense(layer: nn.Linear, x: torch.Tensor) -> None:
        with torch.no_grad():
            out = product(x, layer.weight.t())
            product(out.t(), x)
            if layer is not first:
                product(out, layer.weight)

    def convolution(layer: nn.Module, x: torch.Tensor) -> None:
        out = layer(x.requires_grad_(layer is not first))
        wanted = [layer.weight, x] if layer is not first else [layer.weight]
        torch.autograd.grad(out, wanted, out.detach())

    def epoch() -> None:
        for _ in range(shape.steps):
            for layer, x in seen.items():
                dense(layer, x) if isinstance(layer, nn.Linear) else convolution(layer, x)
            optimizer.step()

    return epoch


SCORED, DRAWS = 20, 5000  # rows and importance samples per row of one timed scoring


def score_vaelid(shape: Shape) -> Epoch:
    """Importance-sampled log p of `SCORED` rows from `DRAWS` draws each."""
    import vaelid as vd

    model, x = vaelid_model(shape).eval(), shape.rows()[:SCORED]
    return lambda: vd.evidence.importance(model, x, DRAWS, vd.Key(0))


def score_pythae(shape: Shape) -> Epoch:
    """The same by Pythae's ``get_nll``, with a batch that divides the draws: it ignores what is left over."""
    import torch

    model, x = pythae_model(shape).eval(), torch.from_numpy(shape.rows()[:SCORED])

    def score() -> None:
        with torch.no_grad():
            model.get_nll(x, n_samples=DRAWS, batch_size=1000)

    return score


def score_decoder(shape: Shape) -> Epoch:
    """The decoder alone, as PyTorch runs it, on as many latents."""
    import torch

    decoder = vaelid_model(shape).likelihood.network.eval()

    def score() -> None:
        with torch.no_grad():
            for _ in range(SCORED * DRAWS // 4000):
                decoder(torch.zeros(4000, shape.latent))

    return score


SCORERS = {"vaelid": score_vaelid, "Pythae get_nll": score_pythae, "bare decoder": score_decoder}
CONTESTANTS = {
    "vaelid": vaelid,
    "vaelid, eager": vaelid_eager,
    "PyTorch by hand": pytorch,
    "Pythae 0.1.2": pythae,
    "JAX lax.scan": jax,
    "floor": floor,
}


def main() -> None:
    """Get ready, then answer."""
    task, name, shape = {"train": CONTESTANTS, "score": SCORERS}[sys.argv[1]], sys.argv[2], SHAPES[sys.argv[3]]
    warnings.simplefilter("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr  # a contestant's own talk goes to stderr
    epoch = task[name](shape)
    epoch()
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        epoch()
        print(time.perf_counter() - began, file=answers, flush=True)


if __name__ == "__main__":
    main()
