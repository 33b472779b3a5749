"""The benchmarks' own contestants run; peers are installed for a benchmark only and are not looked for here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

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
