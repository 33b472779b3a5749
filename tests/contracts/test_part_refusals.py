"""What does not fit is refused in one line that says what was given and what is expected."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vaelid import likelihoods, networks
from vaelid.errors import InputError, InputTypeError
from vaelid.evidence import importance
from vaelid.model import VAE
from vaelid.posteriors import DiagonalNormal
from vaelid.priors import StandardNormal
from vaelid.random import Key
from vaelid.types import Batch

KEY = Key(3)


def bernoulli(latent: int, encoder: nn.Module, decoder: nn.Module) -> VAE:
    return VAE(StandardNormal(latent), likelihoods.Bernoulli(decoder), DiagonalNormal(encoder))


def gaussian(decoder: nn.Module, scale: likelihoods.Scale | None = None) -> VAE:
    return VAE(StandardNormal(2), likelihoods.Gaussian(decoder, (6,), scale), DiagonalNormal(nn.Linear(6, 4)))


def plain() -> VAE:
    return bernoulli(2, nn.Linear(6, 4), nn.Linear(2, 6))


def conditional() -> VAE:
    return bernoulli(2, networks.MLP(6, 2, (), heads=2, context=2), networks.MLP(2, 6, (), context=2))


class Two(nn.Module):
    """An encoder in the style of many tutorials: it returns a pair."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :2], x[:, 2:4]


X6 = (KEY.uniform((4, 6)) < 0.5).float()
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "latent size 0": (lambda: StandardNormal(0), "the latent size is 0; expected a whole number of at least 1"),
    "latent size 2.5": (lambda: StandardNormal(2.5), "the latent size is 2.5"),  # type: ignore[arg-type]
    "more latents in q": (
        lambda: bernoulli(2, nn.Linear(6, 6), nn.Linear(2, 6)).encode(X6),
        "the posterior has 3 latents; expected 2",
    ),
    "one latent in q": (  # would be broadcast
        lambda: bernoulli(2, nn.Linear(6, 2), nn.Linear(2, 6)).encode(X6),
        "the posterior has 1 latents; expected 2",
    ),
    "odd encoder": (
        lambda: bernoulli(2, nn.Linear(6, 3), nn.Linear(2, 6)).encode(X6),
        r"network returned shape \(1, 3\); expected \(1, 2 × latent\)",
    ),
    "encoder of other events": (
        lambda: bernoulli(2, nn.Linear(5, 4), nn.Linear(2, 6)).encode(X6),
        r"cannot encode a row of shape \(6,\) to 2 latents .*; expected an encoder from \(6,\) to 2 means",
    ),
    "encoder that returns a pair": (
        lambda: bernoulli(2, Two(), nn.Linear(2, 6)).encode(X6),
        "Two returned a tuple; expected one tensor",
    ),
    "decoder of other latents": (
        lambda: bernoulli(2, nn.Linear(6, 4), nn.Linear(3, 6)).encode(X6),
        r"cannot decode 2 latents .*; expected a decoder from 2 latents to events of shape \(6,\)",
    ),
    "decoder of other events": (
        lambda: bernoulli(2, nn.Linear(6, 4), nn.Linear(2, 5)).encode(X6),
        r"decodes to events of shape \(5,\); expected \(6,\)",
    ),
    "decoder of one cell": (  # would be broadcast
        lambda: bernoulli(2, nn.Linear(6, 4), nn.Linear(2, 1)).encode(X6),
        r"decodes to events of shape \(1,\)",
    ),
    "Gaussian decoder of one cell": (  # would be broadcast against the features' means
        lambda: gaussian(nn.Linear(2, 1)).encode(X6),
        r"decodes to events of shape \(1,\); expected \(6,\)",
    ),
    "missing head": (
        lambda: VAE(
            StandardNormal(2), likelihoods.Categorical(nn.Linear(2, 16), 3), DiagonalNormal(nn.Linear(18, 4))
        ).encode(X6),
        "Give the decoder 3 outputs per cell",
    ),
    "predicted scale, one head": (
        lambda: gaussian(nn.Linear(2, 6), likelihoods.PredictedScale()).encode(X6),
        r"events of shape \(3,\); expected \(6,\).*heads=2",
    ),
    "context that no network takes": (
        lambda: bernoulli(2, nn.Linear(6, 4), nn.Linear(2, 6)).encode(X6, context=torch.zeros(4, 3)),
        "cannot encode a row of shape (.*) and 3 covariates",
    ),
    "context of other rows": (
        lambda: conditional().encode(X6, context=torch.zeros(3, 2)),
        r"context has shape \(3, 2\); expected \(4, c\)",
    ),
    "no context": (lambda: conditional().encode(X6), "no context, for a network built for 2 covariates"),
    "samples of other rows of context": (lambda: conditional().sample(3, KEY, torch.zeros(4, 2)), r"expected \(3, c\)"),
    "no samples": (lambda: plain().sample(0, KEY), "the number of samples is 0"),
    "mask of another shape": (lambda: plain().encode(X6, mask=torch.ones(4, 5)), r"the mask has shape \(4, 5\)"),
    "weights of other rows": (
        lambda: plain().batch(X6, weight=[1.0, 2.0]),
        r"weight has shape \(2,\); expected \(4,\)",
    ),
    "ids of other rows": (lambda: plain().batch(X6, row_id=[1, 2]), r"row_id has shape \(2,\); expected \(4,\)"),
    "a batch and a mask": (lambda: plain().encode(Batch(X6), mask=X6), "a Batch, and beside it a mask"),
    "values outside the support": (lambda: plain().encode(X6 + 1), "Bernoulli likelihood"),
    "NaN": (lambda: gaussian(nn.Linear(2, 6)).encode(X6 * math.nan), "NaN or infinity"),
    "flat image": (lambda: networks.ConvEncoder((8, 8), 2), "add a channel dimension"),  # type: ignore[arg-type]
    "no trials": (lambda: likelihoods.Binomial(nn.Linear(2, 6), 0), "number of trials is 0"),
    "one class": (lambda: likelihoods.Categorical(nn.Linear(2, 6), 1), "number of classes is 1"),
    "one level": (lambda: likelihoods.Ordinal(nn.Linear(2, 6), 1, (6,)), "number of levels is 1"),
    "no components": (
        lambda: likelihoods.DiscretizedLogisticMixture(nn.Linear(2, 6), 0),
        "number of components is 0",
    ),
    "mixture without its heads": (
        lambda: VAE(
            StandardNormal(2),
            likelihoods.DiscretizedLogisticMixture(nn.Linear(2, 8), 3),
            DiagonalNormal(nn.Linear(6, 4)),
        ).encode(X6),
        "Give the decoder 9 outputs per cell",
    ),
    "values off the grid": (
        lambda: VAE(
            StandardNormal(2),
            likelihoods.DiscretizedLogistic(nn.Linear(2, 12), 0, 1, 0.25),
            DiagonalNormal(nn.Linear(6, 4)),
        ).encode(0.3 * X6),
        r"DiscretizedLogistic likelihood cannot give.*first: 0.3.*in steps of 0.25",
    ),
    "zeros for a log-normal": (
        lambda: VAE(
            StandardNormal(2), likelihoods.LogNormal(nn.Linear(2, 6), (6,)), DiagonalNormal(nn.Linear(6, 4))
        ).encode(X6),
        "first: 0 in row 0.*expected numbers > 0",
    ),
    "no importance samples": (lambda: importance(plain(), X6, 0, KEY), "samples is 0"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refusals(what: str) -> None:
    """One line: what was given, what is expected."""
    call, message = REFUSED[what]
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("box", ["prior", "likelihood", "posterior"])
def test_a_bare_network_is_no_box(box: str) -> None:
    boxes = {
        "prior": StandardNormal(2),
        "likelihood": likelihoods.Bernoulli(nn.Linear(2, 6)),
        "posterior": DiagonalNormal(nn.Linear(6, 4)),
    }
    with pytest.raises(InputTypeError, match=f"{box}=Linear; expected a vaelid {box}"):
        VAE(**(boxes | {box: nn.Linear(2, 6)}))  # type: ignore[arg-type]
