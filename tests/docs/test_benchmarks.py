"""The benchmarks' own contestants run; peers are installed for a benchmark only and are not looked for here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vaelid import geometry

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import geodesic_contestants, geodesics
from benchmarks.contestants import CONTESTANTS, SCORERS
from benchmarks.networks import Shape

SMALL = {"dense": Shape((6,), (8,), 2, 2), "convolutional": Shape((1, 28, 28), (), 2, 1)}
OURS = ("vaelid, eager", "PyTorch by hand", "floor")


@pytest.mark.parametrize("shape", SMALL)
@pytest.mark.parametrize("name", OURS)
def test_contestants_train_an_epoch(name: str, shape: str) -> None:
    epoch = CONTESTANTS[name](SMALL[shape])
    assert epoch() is None
    assert epoch() is None


@pytest.mark.parametrize("name", ["vaelid", "bare decoder"])
def test_scorers_score(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.contestants.DRAWS", 400)
    result = SCORERS[name](SMALL["dense"])()
    assert result is None or (result.log_evidence.isfinite().all() and result.samples == 400)


def test_geodesics_of_adam_and_their_recheck() -> None:
    """On the sphere, in a chart: near great circles, and only what has converged passes."""

    def sphere(z: Tensor) -> Tensor:
        square = z.square().sum(-1, keepdim=True)
        return torch.cat((2 * z, square - 1), -1) / (square + 1)

    a, b = torch.tensor([[0.3, -0.2], [0.5, 0.1]]), torch.tensor([[-0.4, 0.6], [-0.3, -0.5]])
    arc = torch.acos((sphere(a.double()) * sphere(b.double())).sum(1))
    found = geodesic_contestants.adam(sphere, a, b)
    assert found.shape == (2, geodesic_contestants.POINTS, 2)
    torch.testing.assert_close(geometry.length(sphere, found.double()), arc, rtol=2e-3, atol=0)
    path = geometry.geodesic(sphere, a, b).path
    exact = geometry.Embedding(sphere).looked_at(a.double())
    assert geodesics.recheck(exact, path, a, b, 1e-3).tolist() == [True, True]
    assert geodesics.recheck(exact, path, a + 1e-3, b, 1e-3).tolist() == [False, False]
    bent = path + 0.1 * torch.sin(torch.linspace(0, 3.14159265, 33))[:, None] * torch.tensor([1.0, 0.0])
    assert geodesics.recheck(exact, bent, bent[:, 0], bent[:, -1], 1e-3).tolist() == [False, False]
