"""When something goes wrong: steps that explode, rows that break the arithmetic, disks that fill."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

import vaelid as vd
from vaelid import files
from vaelid.data import standard_split
from vaelid.runs import Run
from vaelid.training import Checkpoints, EpochDone, Event, Finished, RolledBack, Settings, checkpoints
from vaelid.training.feed import InMemory
from vaelid.training.loop import Loop
from vaelid.training.recovery import Failed, inspect

ROWS, STEPS = 180, 72  # steps in an epoch of 144 training rows in twos; boundaries after 36 and 72


def table() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(ROWS, 3)) @ rng.normal(size=(3, 5)) + 0.3 * rng.normal(size=(ROWS, 5))


def settings(**changed: Any) -> Settings:
    return Settings(**{"epochs": 3, "batch_size": 2, "warmup_steps": 0, "save_every": 0, "plateau": 99} | changed)


def small(x: np.ndarray) -> vd.VAE:
    return vd.recipes.vae(x, latent=2, hidden=(8,))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def finite(model: nn.Module) -> bool:
    return all(bool(value.isfinite().all()) for value in model.state_dict().values())


class Trap(nn.Module):
    """An encoder that gives NaN for rows whose first feature is at least ``high``, while it is ``armed``."""

    def __init__(self, network: nn.Module, high: float, armed: bool = False) -> None:
        super().__init__()
        self.network, self.high, self.armed = network, high, armed

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x)
        return torch.where((x[:, :1] >= self.high) & self.armed, math.nan, out)


def trapped(x: np.ndarray, rows: np.ndarray) -> tuple[vd.VAE, Trap]:
    """A model whose encoder fails at ``rows``, which get the largest first features of all."""
    x[rows, 0] = 20.0
    model = small(x)
    trap = Trap(model.posterior.network, high=5.0)
    model.posterior.network = trap
    return model, trap


# -- steps ---------------------------------------------------------------------------------------------------------


def test_a_bad_step_is_rolled_back_named_and_left_behind() -> None:
    x = table()
    bad = standard_split(ROWS).train[[17, 90]]
    model, trap = trapped(x, bad)
    before: dict[str, Tensor] = {}
    events: list[Event] = []
    for event in vd.training.events(model, x, settings=settings()):
        if isinstance(event, RolledBack):
            assert same(weights(model), before)  # the last good state
            trap.armed = False
        before = weights(model)
        events.append(event)
        if event.step == STEPS:
            trap.armed = True
    (back,) = (event for event in events if isinstance(event, RolledBack))
    assert back.step == STEPS + (36 if back.failed_step > STEPS + 36 else 0)
    assert 0 < back.failed_step - back.step <= 36
    assert back.reason == "the loss is not finite"
    assert back.tensor == "the reconstruction"
    assert set(back.rows) <= set(bad.tolist())
    assert back.rows != []
    assert back.learning_rate == pytest.approx(0.3 * 2e-3)
    rates = [event.learning_rate for event in events if isinstance(event, EpochDone)]
    assert rates == pytest.approx([2e-3, 0.6e-3, 0.6e-3])
    assert isinstance(events[-1], Finished)
    assert finite(model)


def test_rows_that_always_fail_end_the_run_with_the_best_weights_saved(tmp_path: Path) -> None:
    x = table()
    bad = standard_split(ROWS).train[[17, 90]]
    model, trap = trapped(x, bad)
    best: dict[str, Tensor] = {}
    copy, back = tmp_path / "copy", []

    def arm(run: Run, events: Iterator[Event]) -> Iterator[Event]:
        for event in record(run, events):
            if isinstance(event, EpochDone):
                best.update(weights(model))
                trap.armed = True
            if isinstance(event, RolledBack):
                back.append(event)
                if len(back) == 2:
                    shutil.copytree(run.path, copy)  # what a SIGKILL would leave now
            yield event

    with pytest.MonkeyPatch.context() as patch:
        record = Run.record
        patch.setattr(Run, "record", arm)
        with pytest.raises(vd.RunError) as caught:
            vd.fit(model, x, settings=settings(), out=tmp_path / "run", progress=False)
    message = str(caught.value)
    assert "\n" not in message
    assert "the loss is not finite (the reconstruction, rows " in message
    assert "3 times although the rate was lowered each time" in message
    assert any(str(row) in message for row in bad)
    run = Run.open(tmp_path / "run")
    recorded = [event for event in run.events() if event["event"] == "RolledBack"]
    assert [event["learning_rate"] for event in recorded] == pytest.approx([0.6e-3, 0.18e-3, 0.054e-3])
    assert len({(event["failed_step"], tuple(event["rows"])) for event in recorded}) == 1
    assert same(weights(model), best)
    assert same(checkpoints.read(run.model_file)[0], best)
    assert not run.finished
    with pytest.raises(vd.RunError, match="3 times"):  # killed after its first failure was saved, it has two more
        vd.resume(copy, model=model, progress=False)
    assert said(copy) == said(run.path)
    # the same again with the trap in place, and to the end without it
    with pytest.raises(vd.RunError, match="3 times"):
        vd.resume(run.path, model=model, progress=False)
    trap.armed = False
    again, history = vd.resume(run.path, model=model, progress=False)
    assert history.finished.epoch == 3
    assert finite(again)
    assert len([event for event in run.events() if event["event"] == "RolledBack"]) == 6


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_row_that_overflows_is_named(part: str) -> None:
    x = table()
    row = int(getattr(standard_split(ROWS), part)[5])
    x[row] = 1e25  # the square of it is more than float32 holds
    likelihood = vd.likelihoods.Gaussian(vd.networks.MLP(2, 5, (8,)), (5,))  # not adapted to the data
    encoder = vd.networks.MLP(5, 2, (8,), heads=2)
    model = vd.VAE(vd.priors.StandardNormal(2), likelihood, vd.posteriors.DiagonalNormal(encoder))
    where = "surrogate of validation rows" if part == "validation" else "loss"
    with pytest.raises(vd.RunError, match=rf"the {where} is not finite \(.*, rows {row}\), 3 times"):
        vd.fit(model, x, settings=settings(), progress=False)
    assert finite(model)


@pytest.mark.parametrize("warmup", [0, 20])
@pytest.mark.parametrize("rate", [1.0, 10.0, 1e4, 1e30])
def test_an_absurd_rate_ends_in_recovery_or_an_error_never_in_nan(rate: float, warmup: int) -> None:
    x = table()
    model = small(x)
    events: list[Event] = []
    with contextlib.suppress(vd.RunError):
        events.extend(vd.training.events(model, x, settings=settings(learning_rate=rate, warmup_steps=warmup)))
    assert finite(model)
    assert not model.training
    done = [event for event in events if isinstance(event, EpochDone)]
    assert all(math.isfinite(value) for event in done for value in event.validation.values())


def test_an_exploding_loss_is_rolled_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step at a thousand times the rate throws the weights far off, with every number finite."""
    x = table()
    original = Loop._step

    def leap(loop: Loop, order: Tensor) -> Any:
        found = original(loop, order)
        if loop.state.step == 50 and loop.state.rate_scale == 1:
            with torch.no_grad():
                loop.model.likelihood.network.layers[-1].weight.mul_(1e4)
        return found

    monkeypatch.setattr(Loop, "_step", leap)
    events = list(vd.training.events(small(x), x, settings=settings()))
    (back,) = (event for event in events if isinstance(event, RolledBack))
    assert (back.step, back.failed_step) == (36, 51)
    assert "the loss rose to" in back.reason
    assert back.tensor.startswith("the gradient of ")
    assert len(back.rows) == 1
    assert isinstance(events[-1], Finished)


def test_a_snapshot_past_saving_is_replaced_by_the_best_weights() -> None:
    x = table()
    model, parts = small(x), standard_split(ROWS)
    rows = [vd.training.rows_of(vd.data.load(x), part, model.device) for part in (parts.train, parts.validation)]
    loop = Loop(model, InMemory(rows[0], 2), rows[1], vd.objectives.ELBO(), settings(), vd.Key(0))
    events = []
    for event in loop.run():
        events.append(event)
        if event.step == 108 and not isinstance(event, RolledBack):
            for name, value in loop.snapshot.items():
                if name.startswith("model.likelihood.network"):
                    value.mul_(1e6)
            loop._restore()
    back = [event for event in events if isinstance(event, RolledBack)]
    assert [event.failed_step for event in back] == [109, 109]
    assert events[-1] == Finished(3 * STEPS, 3, 3, "all 3 epochs done")
    bounds = [event.validation["bound"] for event in events if isinstance(event, EpochDone)]
    assert bounds[-1] > bounds[0] - 1


def test_what_counts_as_an_explosion() -> None:
    steady = [1.0] * 10

    def index(losses: list[float], high: float = 10.0, low: float = 0.0) -> int | None:
        try:
            inspect(losses, steady[: len(losses)], high, low, cells=5)  # the limit is 10 + 10 · (10 − 0 + 5) = 160
        except Failed as failed:
            return failed.index
        return None

    assert index([9.0] * 10) is None
    assert index([9.0] * 4 + [1e9] + [9.0] * 5) is None  # one heavy batch
    assert index([9.0] * 8 + [161.0] * 2) is None  # seen to the end only in the next stretch
    assert index([9.0] * 7 + [161.0] * 3) == 7
    assert index([9.0] * 7 + [159.0] * 3) is None
    assert index([161.0]) == 0
    assert index([9.0] * 5 + [math.nan] + [9.0] * 4) == 5
    # in other units of x every loss is shifted by the same: nothing else may change
    assert index([loss - 1e4 for loss in [9.0] * 7 + [161.0] * 3], 10.0 - 1e4, -1e4) == 7
    assert index([loss - 1e4 for loss in [9.0] * 7 + [159.0] * 3], 10.0 - 1e4, -1e4) is None
    with pytest.raises(Failed, match="the gradient is not finite"):
        inspect([1.0], [math.inf], 10.0, 0.0, 5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("likelihood", ["gaussian", "gaussian-predicted"])
def test_heavy_tails_are_no_explosion(likelihood: str, seed: int) -> None:
    """Student's t with two degrees of freedom has no variance: single rows lie hundreds of widths away."""
    x = np.random.default_rng(seed).standard_t(2, size=(2000, 10))
    model = vd.recipes.vae(x, latent=2, hidden=(16,), likelihood=likelihood)
    events = list(vd.training.events(model, x, settings=settings(batch_size=32, warmup_steps=100, epochs=4)))
    assert not any(isinstance(event, RolledBack) for event in events)
    assert isinstance(events[-1], Finished)


def said(path: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    kept = [event for event in events if event["event"] not in ("Started", "Saved")]
    return [{key: value for key, value in event.items() if key != "time"} for event in kept]


def test_killed_anywhere_around_a_rollback_it_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder as it is at every event is what a SIGKILL would leave: all of them go on to the same end."""
    x, original, record = table(), Loop._step, Run.record

    def stumble(loop: Loop, order: Tensor) -> Any:
        if (loop.state.step, loop.state.rate_scale) in ((40, 1.0), (130, 0.3)):
            with torch.no_grad():
                loop.model.likelihood.network.layers[-1].bias.fill_(math.nan)
        return original(loop, order)

    def copying(run: Run, events: Iterator[Event]) -> Iterator[Event]:
        for number, event in enumerate(record(run, events)):
            if run.path.name == "run":
                shutil.copytree(run.path, tmp_path / f"copy-{number}")
            yield event

    monkeypatch.setattr(Loop, "_step", stumble)
    monkeypatch.setattr(Run, "record", copying)
    vd.fit(small(x), x, settings=settings(epochs=2), out=tmp_path / "run", progress=False)
    expected, weights = said(tmp_path / "run"), checkpoints.read(tmp_path / "run" / "model.safetensors")[0]
    assert [event["step"] for event in expected if event["event"] == "RolledBack"] == [36, 108]
    copies = sorted(tmp_path.glob("copy-*"))
    assert len(copies) >= 10
    for copy in copies:
        if Run.open(copy).finished:
            continue
        vd.resume(copy, progress=False)
        assert said(copy) == expected
        assert same(checkpoints.read(copy / "model.safetensors")[0], weights)


# -- disks ---------------------------------------------------------------------------------------------------------

FULL = "No space left on device"


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, FULL)


def full_for_tensors(*_: Any, **__: Any) -> None:
    raise SafetensorError(f"Error while serializing: I/O error: {FULL} (os error 28)")


class FullFile:
    """Stands in for an open events.jsonl on a full disk: half a line fits."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("a")

    def __enter__(self) -> FullFile:
        return self

    def __exit__(self, *_: Any) -> None:
        self.file.close()

    def write(self, line: str) -> None:
        self.file.write(line[: len(line) // 2])
        full()


def fill(patch: pytest.MonkeyPatch, what: str, path: Path) -> None:
    match what:
        case "checkpoint":
            patch.setattr(checkpoints, "save_file", full_for_tensors)
        case "sync":
            patch.setattr(files.os, "fsync", full)
        case "events":
            events = path / "events.jsonl"
            patch.setattr("vaelid.runs.folder.open", lambda *_, **__: FullFile(events), raising=False)


def assert_goes_on(path: Path, expected: Path) -> None:
    vd.resume(path, progress=False)
    assert said(path) == said(expected)
    ours, theirs = (checkpoints.read(folder / "model.safetensors")[0] for folder in (path, expected))
    assert same(ours, theirs)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x, path = table(), tmp_path_factory.mktemp("whole") / "run"
    vd.fit(small(x), x, settings=settings(), out=path, progress=False)
    return path


def at(step: int, act: Callable[[], None]) -> Callable[[Event], dict[str, Any]]:
    """`Event.as_dict` that calls ``act`` just before the event of ``step`` is recorded."""
    original = Event.as_dict

    def patched(event: Event) -> dict[str, Any]:
        if event.step == step:
            act()
        return original(event)

    return patched


@pytest.mark.parametrize("what", ["checkpoint", "sync", "events"])
def test_a_disk_that_fills_leaves_the_last_checkpoint(what: str, tmp_path: Path, undisturbed: Path) -> None:
    x, path = table(), tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Event, "as_dict", at(108, lambda: fill(patch, what, path)))
        with pytest.raises(vd.RunError) as caught:
            vd.fit(small(x), x, settings=settings(), out=path, progress=False)
    message = str(caught.value)
    assert FULL in message
    assert "the last checkpoint is intact" in message
    assert f"Make room in {path} and go on with: vaelid train --resume {path}" in message
    assert Run.open(path).last_checkpoint()[1]["step"] == 72  # a boundary is not saved before its event is recorded
    assert_goes_on(path, undisturbed)


@pytest.mark.parametrize("what", ["checkpoint", "sync"])
def test_a_disk_that_is_full_at_the_end_or_the_start(what: str, tmp_path: Path, undisturbed: Path) -> None:
    x = table()
    with pytest.MonkeyPatch.context() as patch:
        save = Run.save_model
        patch.setattr(Run, "save_model", lambda run, model: (fill(patch, what, run.path), save(run, model)))
        with pytest.raises(vd.RunError, match=r"the model could not be written .* go on with: vaelid train --resume"):
            vd.fit(small(x), x, settings=settings(), out=tmp_path / "end", progress=False)
    assert not Run.open(tmp_path / "end").finished
    assert_goes_on(tmp_path / "end", undisturbed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "save_file", full_for_tensors)
        with pytest.raises(vd.RunError, match=FULL):
            vd.fit(small(x), x, settings=settings(), out=tmp_path / "start", progress=False)
    with pytest.raises(vd.InputError, match=r"no file .*last.safetensors.*train"):
        vd.resume(tmp_path / "start", progress=False)


def test_a_run_folder_that_does_not_fit_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.os, "fsync", full)
    x = table()
    with pytest.raises(vd.InputError, match=rf"the run folder .* cannot be made \(.*{FULL}.*\).*--out"):
        vd.fit(small(x), x, settings=settings(), out=tmp_path / "run", progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_real_disk_that_fills(tiny_disk: Path, undisturbed: Path) -> None:
    x, path, ballast = table(), tiny_disk / "run", tiny_disk / "ballast"

    def fill_up() -> None:
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(512))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Event, "as_dict", at(108, fill_up))
        with pytest.raises(vd.RunError, match=f"{FULL}.*the last checkpoint is intact.*--resume"):
            vd.fit(small(x), x, settings=settings(), out=path, progress=False)
    assert Run.open(path).last_checkpoint()[1]["step"] == 72
    assert [name for name in os.listdir(path / "checkpoints") if name.startswith(".")] == []
    with pytest.raises(vd.RunError, match="could not be written"):  # still full
        vd.resume(path, progress=False)
    ballast.unlink()
    assert_goes_on(path, undisturbed)


def test_checkpoints_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, tensors = tmp_path / "last.safetensors", {"a": torch.arange(6.0).view(2, 3).t(), "b": torch.tensor(2)}
    tensors["c"] = tensors["a"]  # shared and strided
    checkpoints.write(path, tensors, {"best": -math.inf, "step": 3})
    before = path.read_bytes()
    found, state = checkpoints.read(path)
    assert state == {"best": -math.inf, "step": 3}
    assert same(found, tensors)
    monkeypatch.setattr(checkpoints, "save_file", full_for_tensors)
    with pytest.raises(OSError, match=FULL):
        checkpoints.write(path, {"a": torch.zeros(9)}, {})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.safetensors"]
    store = Checkpoints(tmp_path)
    assert (store.last, store.best) == (path, tmp_path / "best.safetensors")
