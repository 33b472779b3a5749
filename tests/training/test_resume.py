"""A run that was killed, interrupted or extended ends as one that was not, bit for bit.

The victims live in one process of their own, this file run as a script: it forks a child for each.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vaelid as vd
from vaelid.runs import Run
from vaelid.training import checkpoints
from vaelid.training.loop import Loop

ROWS, EPOCHS, BATCH = 180, 3, 2
STEPS = 72  # in an epoch: 144 training rows in twos; boundaries after 36 and 72
LONG = 20  # epochs of those that are killed from outside
LIMIT = 60.0


class Own(nn.Module):
    """A network of the user's, with dropout: randomness that vaelid does not draw itself."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, 8), nn.Dropout(0.3), nn.BatchNorm1d(8), nn.Linear(8, outputs))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


def table() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(ROWS, 3)) @ rng.normal(size=(3, 5)) + 0.3 * rng.normal(size=(ROWS, 5))


def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (ROWS, 4, 4)).astype(np.uint8)


def own_model() -> vd.VAE:
    torch.manual_seed(5)
    likelihood = vd.likelihoods.Gaussian(Own(2, 5), (5,))
    return vd.VAE(vd.priors.StandardNormal(2), likelihood, vd.posteriors.DiagonalNormal(Own(5, 4)))


def with_context() -> vd.VAE:
    torch.manual_seed(5)
    decoder, encoder = vd.networks.MLP(2, 5, (8,), context=2), vd.networks.MLP(5, 2, (8,), heads=2, context=2)
    likelihood = vd.likelihoods.Gaussian(decoder, (5,))
    return vd.VAE(vd.priors.StandardNormal(2), likelihood, vd.posteriors.DiagonalNormal(encoder))


def ask(kind: str) -> tuple[vd.VAE, np.ndarray, dict[str, Any], dict[str, Any]]:
    """Model, rows, arguments of `fit` and changed settings of a kind of run."""
    objectives: dict[str, Any] = {
        "iwae": vd.objectives.IWAE(samples=3),
        "warmup": vd.objectives.ELBO(beta=vd.objectives.Warmup(100, end=2.0), free_bits=0.1),
    }
    given: dict[str, Any] = {"objective": objectives[kind]} if kind in objectives else {}
    changed: dict[str, Any] = {"schedule": "cosine"} if kind == "cosine" else {}
    if kind == "binarise":
        x = images()
        return vd.recipes.vae(x, latent=2, hidden=(8,), binarise=True), x, {"binarise": True}, changed
    x = table()
    if kind == "own":
        return own_model(), x, given, changed
    if kind == "extras":
        rng = np.random.default_rng(1)
        mask = rng.uniform(size=x.shape) < 0.8
        x = np.where(mask, x, np.nan)
        given = {"mask": mask, "context": rng.normal(size=(ROWS, 2)), "weight": rng.uniform(size=ROWS)}
        return with_context(), x, given, changed
    return vd.recipes.vae(x, latent=2, hidden=(8,)), x, given, changed


def train(kind: str, out: Path | str, epochs: int = EPOCHS, **settings: Any) -> vd.VAE:
    model, x, given, changed = ask(kind)
    settings = {"batch_size": BATCH, "warmup_steps": 20, "save_every": 0, "plateau": 1} | changed | settings
    vd.fit(model, x, settings=vd.Settings(epochs=epochs, **settings), seed=3, out=out, progress=False, **given)
    return model


# -- the victims ---------------------------------------------------------------------------------------------------


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(original: Callable[..., Any], when: Callable[..., bool], act: Callable[..., Any]) -> Callable[..., Any]:
    """``original``, but ``act`` is called first where ``when`` holds."""

    def patched(*args: Any, **kwargs: Any) -> Any:
        if when(*args, **kwargs):
            act(*args)
        return original(*args, **kwargs)

    return patched


def dying_at(number: int, events: Iterator[Any]) -> Iterator[Any]:
    for count, event in enumerate(events):
        if count == number:
            die()
        yield event


def lay_trap(where: str, number: int) -> None:
    """Make this process kill itself at a point of its training."""
    saved: list[Path] = []
    match where:
        case "step":
            Loop._step = before(Loop._step, lambda loop, order: loop.state.step == number, die)  # type: ignore[method-assign]
        case "unrecorded event":  # the loop said it, events.jsonl does not have it
            record = Run.record
            Run.record = lambda run, events: record(run, dying_at(number, events))  # type: ignore
        case "consumed event":
            record = Run.record
            Run.record = lambda run, events: dying_at(number, record(run, events))  # type: ignore
        case "half a checkpoint":  # the temporary file is there, not yet moved

            def save_then_die(*args: Any) -> None:
                save(*args)
                saved.append(args[1])
                if len(saved) == number:
                    die()

            save, checkpoints.save_file = checkpoints.save_file, save_then_die
        case "best without last":

            def between(path: Path, *_: Any) -> bool:
                saved.append(path)
                return path.name == "last.safetensors" and saved[-2:-1] != [path] and len(saved) > number

            checkpoints.write = before(checkpoints.write, between, die)
        case "model":
            Run.save_model = before(Run.save_model, lambda *_: True, die)  # type: ignore[method-assign]


def victim(spec: dict[str, Any]) -> int:
    """Train until killed; 130 where a signal was answered by saving, 0 where nothing happened."""
    lay_trap(spec["where"], spec.get("number", 0))
    try:
        train(spec["kind"], spec["out"], spec["epochs"], **spec.get("settings", {}))
    except vd.Interrupted as error:
        Path(f"{spec['out']}.said").write_text(str(error))
        return 130
    return 0


def fork(spec: dict[str, Any]) -> int:
    """Run a victim in a child and wait for its end; its status, negative where a signal ended it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = victim(spec)
        finally:
            os._exit(code)
    if spec["where"] == "outside":
        began, events = time.monotonic(), Path(spec["out"], "events.jsonl")
        while not (events.exists() and "EpochDone" in events.read_text()) and time.monotonic() - began < LIMIT:
            time.sleep(0.005)
        time.sleep(spec["delay"])
        os.kill(child, spec["signal"])
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


VICTIMS: dict[str, dict[str, Any]] = {
    "the first step": {"where": "step", "number": 0},
    "between boundaries": {"where": "step", "number": 50},
    "a boundary within an epoch": {"where": "step", "number": 36},
    "the end of an epoch": {"where": "step", "number": STEPS},
    "the last step": {"where": "step", "number": 3 * STEPS - 1},
    "a step, never saved since the start": {"where": "step", "number": 100, "settings": {"save_every": 1e9}},
    "an event not yet recorded": {"where": "unrecorded event", "number": 4},
    "an event just recorded": {"where": "consumed event", "number": 6},
    "half a checkpoint": {"where": "half a checkpoint", "number": 6},
    "best.safetensors new, last.safetensors old": {"where": "best without last", "number": 5},
    "all done but the model": {"where": "model"},
    "some moment": {"where": "outside", "signal": signal.SIGKILL, "delay": 0.17, "epochs": LONG},
    "another moment": {"where": "outside", "signal": signal.SIGKILL, "delay": 0.31, "epochs": LONG},
    "Ctrl-C": {"where": "outside", "signal": signal.SIGINT, "delay": 0.1, "epochs": LONG},
    "SIGTERM": {"where": "outside", "signal": signal.SIGTERM, "delay": 0.1, "epochs": LONG},
    "binarised": {"where": "step", "number": 100, "kind": "binarise"},
    "cosine": {"where": "step", "number": 100, "kind": "cosine"},
    "IWAE": {"where": "step", "number": 100, "kind": "iwae"},
    "warm-up and free bits": {"where": "step", "number": 130, "kind": "warmup"},
    "dropout and batch statistics": {"where": "step", "number": 100, "kind": "own"},
    "mask, context and weights": {"where": "step", "number": 100, "kind": "extras"},
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every victim's spec with its ``status``."""
    folder = tmp_path_factory.mktemp("killed")
    specs = {
        name: {"kind": "elbo", "epochs": EPOCHS, "out": str(folder / f"run-{number}")} | spec
        for number, (name, spec) in enumerate(VICTIMS.items())
    }
    done = subprocess.run(
        [sys.executable, __file__], input=json.dumps(list(specs.values())), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    statuses = json.loads(done.stdout.splitlines()[-1])
    return {name: spec | {"status": status} for (name, spec), status in zip(specs.items(), statuses, strict=True)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Run folders of trainings that nothing disturbed, made once each."""
    folder = tmp_path_factory.mktemp("whole")

    def run(kind: str = "elbo", epochs: int = EPOCHS) -> Path:
        path = folder / f"{kind}-{epochs}"
        if not path.exists():
            train(kind, path, epochs)
        return path

    return run


def said(path: Path) -> list[dict[str, Any]]:
    """What events.jsonl says about training itself: no times, no starts and no saves."""
    events = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    kept = [event for event in events if event["event"] not in ("Started", "Saved")]
    return [{key: value for key, value in event.items() if key != "time"} for event in kept]


def assert_same(path: Path, other: Path) -> None:
    """Weights, optimiser, loop state and events of two runs are equal, every bit of them."""
    for file in ("model.safetensors", "checkpoints/last.safetensors", "checkpoints/best.safetensors"):
        (tensors, state), (expected, expected_state) = checkpoints.read(path / file), checkpoints.read(other / file)
        assert state == expected_state
        assert tensors.keys() == expected.keys()
        assert [name for name in tensors if not torch.equal(tensors[name], expected[name])] == []
    assert said(path) == said(other)


@pytest.mark.parametrize("name", VICTIMS)
def test_killed_and_resumed_is_never_killed(
    name: str, killed: dict[str, dict[str, Any]], whole: Callable[..., Path]
) -> None:
    spec = killed[name]
    path, signalled = Path(spec["out"]), spec.get("signal")
    graceful = signalled in (signal.SIGINT, signal.SIGTERM)
    assert spec["status"] == (130 if graceful else -signal.SIGKILL)
    assert not (path / "model.safetensors").exists() or spec["where"] == "outside"
    if graceful:
        message = Path(f"{path}.said").read_text()
        assert "interrupted at step" in message
        assert f"vaelid train --resume {path}" in message
        assert 0 < Run.open(path).last_checkpoint()[1]["step"] < spec["epochs"] * STEPS
    own = own_model() if spec["kind"] == "own" else None
    torch.manual_seed(99)  # PyTorch's own generator was at another place when the run was killed
    vd.resume(path, model=own, progress=False)
    assert_same(path, whole(spec["kind"], spec["epochs"]))
    leftovers = [found.name for found in path.rglob(".*")]
    assert leftovers == []


def test_more_epochs_equal_that_many_at_once(tmp_path: Path, whole: Callable[..., Path]) -> None:
    train("elbo", tmp_path / "run", 1)
    model, history = vd.resume(tmp_path / "run", epochs=EPOCHS, progress=False)
    assert [epoch.epoch for epoch in history.epochs] == [2, 3]
    assert_same(tmp_path / "run", whole())
    assert Run.open(tmp_path / "run").config.training.epochs == EPOCHS
    best = checkpoints.read(whole() / "model.safetensors")[0]
    assert all(torch.equal(value, best[name]) for name, value in model.state_dict().items())


def test_a_cosine_keeps_its_first_horizon(tmp_path: Path, whole: Callable[..., Path]) -> None:
    train("cosine", tmp_path / "run", 2)
    _, history = vd.resume(tmp_path / "run", epochs=EPOCHS, progress=False)
    assert Run.open(tmp_path / "run").config.training.horizon == 2
    assert history.epochs[0].learning_rate == pytest.approx(0.01 * 2e-3)
    assert said(whole("cosine"))[0] != said(tmp_path / "run")[0]


def test_closing_the_events_saves(tmp_path: Path, whole: Callable[..., Path]) -> None:
    model, x, _, _ = ask("elbo")
    store = vd.training.Checkpoints(tmp_path)
    settings = vd.Settings(epochs=EPOCHS, batch_size=BATCH, warmup_steps=20, plateau=1)
    for event in vd.training.events(model, x, settings=settings, seed=3, checkpoints=store):
        if event.step == 108:
            break
    assert checkpoints.read(store.last)[1]["step"] == 108
    assert not model.training
    stream = vd.training.events(model, x, settings=settings, seed=3, checkpoints=store, resume=True)
    assert list(stream)[-1] == vd.training.Finished(216, 3, 3, "all 3 epochs done")
    expected = checkpoints.read(whole() / "model.safetensors")[0]
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_a_finished_run_wants_more_epochs(tmp_path: Path) -> None:
    train("elbo", tmp_path / "run", 1)
    files = {path: path.read_bytes() for path in sorted((tmp_path / "run").rglob("*")) if path.is_file()}
    for epochs in (None, 1):
        with pytest.raises(vd.InputError, match=r"finished \(all 1 epochs done\).*--resume .*run --epochs 2"):
            vd.resume(tmp_path / "run", epochs=epochs, progress=False)
    train("elbo", tmp_path / "longer", 2)
    with pytest.raises(vd.InputError, match="--epochs 1 for a run that was asked for 2"):
        vd.resume(tmp_path / "longer", epochs=1, progress=False)
    assert files == {path: path.read_bytes() for path in sorted((tmp_path / "run").rglob("*")) if path.is_file()}


def test_an_early_stop_is_final_until_more_is_asked(tmp_path: Path) -> None:
    """Noise can only be overfitted: validation gets worse, and patience runs out."""
    x = np.random.default_rng(0).normal(size=(60, 12))
    settings = vd.Settings(epochs=400, batch_size=16, patience=4, plateau=2, learning_rate=0.02)
    model = vd.recipes.vae(x, latent=4, hidden=(64,))
    history = vd.fit(model, x, settings=settings, out=tmp_path / "run", progress=False)
    stopped = history.finished.epoch
    assert stopped == history.finished.best_epoch + 4 < 400
    assert history.finished.reason == "no better validation bound for 4 epochs"
    with pytest.raises(vd.InputError, match=r"finished \(no better validation bound for 4 epochs\)"):
        vd.resume(tmp_path / "run", epochs=400, progress=False)
    _, further = vd.resume(tmp_path / "run", epochs=401, progress=False)
    assert further.epochs[0].epoch == stopped + 1
    assert len(further.epochs) == 4  # its full patience again, and nothing better found
    assert further.finished.best_epoch == history.finished.best_epoch


def test_killed_after_an_early_stop_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stop is part of the state: the run ends where it would have, with nothing trained anew."""
    x = np.random.default_rng(0).normal(size=(60, 12))
    settings = vd.Settings(epochs=400, batch_size=16, patience=4, plateau=2, learning_rate=0.02, save_every=0)
    model = vd.recipes.vae(x, latent=4, hidden=(64,))

    class Killed(BaseException):
        pass

    def die_here(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_model", die_here)
        with pytest.raises(Killed):
            vd.fit(model, x, settings=settings, out=tmp_path / "run", progress=False)
    before_it = said(tmp_path / "run")
    _, history = vd.resume(tmp_path / "run", progress=False)
    assert history.epochs == []
    assert history.finished.reason == "no better validation bound for 4 epochs"
    assert said(tmp_path / "run")[:-1] == before_it


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps([fork(spec) for spec in json.loads(sys.stdin.read())]))
