"""The loop: reproducible, held to its schedule, choosing the weights that validate best, never waiting in a step."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
import signal
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import vaelid as vd
from vaelid.data import Split, standard_split
from vaelid.objectives import ELBO, Objective, Warmup
from vaelid.training import EpochDone, Event, Finished, Progress, Settings, Started, graceful, learning_rate
from vaelid.training.adam import Adam
from vaelid.training.feed import InMemory
from vaelid.training.loop import Loop
from vaelid.training.start import rows_of

ROWS = 60


def table(rows: int = ROWS) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 2)) @ rng.normal(size=(2, 5)) + 0.3 * rng.normal(size=(rows, 5))


def small(x: np.ndarray | None = None, **given: Any) -> vd.VAE:
    return vd.recipes.vae(table() if x is None else x, **{"latent": 2, "hidden": (8,)} | given)


def settings(**changed: Any) -> Settings:
    return Settings(**{"epochs": 3, "batch_size": 16, "warmup_steps": 5} | changed)


def said(model: vd.VAE, x: Any = None, **given: Any) -> list[Event]:
    return list(vd.training.events(model, table() if x is None else x, **{"settings": settings()} | given))


def epochs(events: list[Event]) -> list[EpochDone]:
    return [event for event in events if isinstance(event, EpochDone)]


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# -- reproducible --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["table", "binarised", "dropout"])
def test_same_seed_same_weights_twice(name: str) -> None:
    drawn = itertools.count()

    def run(seed: int) -> tuple[dict[str, Tensor], list[Event]]:
        if name == "binarised":
            x = np.random.default_rng(0).integers(0, 256, (ROWS, 4, 4)).astype(np.uint8)
            model = small(x, binarise=True)
            return weights(model), said(model, x, seed=seed, binarise=True)
        model = small()
        if name == "dropout":
            model.posterior.network = nn.Sequential(nn.Dropout(0.5), model.posterior.network)
            torch.rand(next(drawn))  # whatever else was drawn from PyTorch's own generator
        events = said(model, seed=seed)
        return weights(model), events

    first, second, other = run(0), run(0), run(1)
    assert same(first[0], second[0])
    assert first[1] == second[1]
    assert first[1] != other[1]
    if name != "binarised":
        assert not same(first[0], other[0])


def test_weights_depend_on_no_generator_and_leave_it_alone() -> None:
    first, second = small(), small()
    torch.manual_seed(1)
    said(first)
    state = torch.get_rng_state()
    torch.rand(7)
    torch.manual_seed(1)
    said(second)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(state, torch.Generator().manual_seed(1).get_state())
    assert same(weights(first), weights(second))


def test_rows_for_testing_change_nothing() -> None:
    x, parts = table(), standard_split(ROWS)
    other = x.copy()
    other[parts.test] += 100
    first, second = small(train_rows=parts.train), small(other, train_rows=parts.train)
    assert said(first, x) == said(second, other)
    assert same(weights(first), weights(second))


# -- the schedule --------------------------------------------------------------------------------------------------


def test_the_rate_rises_linearly_and_stays() -> None:
    asked = Settings(learning_rate=1e-3, warmup_steps=10)
    assert [learning_rate(asked, step, 7) for step in (0, 4, 9, 10, 10**6)] == pytest.approx(
        [1e-4, 5e-4, 1e-3, 1e-3, 1e-3], rel=1e-12
    )
    assert learning_rate(asked, 50, 7, scale=0.4) == pytest.approx(4e-4, rel=1e-12)
    assert learning_rate(Settings(learning_rate=1e-3, warmup_steps=0), 0, 7) == 1e-3


def test_the_cosine_ends_at_a_hundredth_at_its_horizon() -> None:
    asked = Settings(learning_rate=1e-3, warmup_steps=0, schedule="cosine", epochs=8).resolved()
    assert asked.horizon == 8
    rates = [learning_rate(asked, step, 5) for step in (0, 10, 20, 30, 40, 400)]
    halves = [1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125), 0, 0]
    assert rates == pytest.approx([1e-3 * (0.01 + 0.99 * half) for half in halves], rel=1e-9)


def test_a_plateau_lowers_the_rate() -> None:
    """With a rate too small to change a weight, no epoch is better than the first."""
    still = settings(epochs=9, learning_rate=1e-30, plateau=2, factor=0.5, patience=0, warmup_steps=0)
    done = epochs(said(small(), settings=still))
    rates = [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    assert [epoch.learning_rate / 1e-30 for epoch in done] == pytest.approx(rates)
    assert [epoch.best for epoch in done] == [True] + [False] * 8
    assert len({tuple(epoch.validation.values()) for epoch in done}) == 1  # the same noise at every epoch


# -- the optimiser -------------------------------------------------------------------------------------------------


def test_adam_is_adam() -> None:
    model, twin = small(), small()
    ours, theirs = Adam(model, clip=1e9), torch.optim.Adam(twin.parameters(), lr=3e-3)
    for number in range(5):
        for net in (model, twin):
            net.zero_grad()
            sum((p * (number + 1)).sin().sum() for p in net.parameters()).backward()
        ours.step(3e-3, number)
        theirs.step()
    for mine, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7)


def test_a_huge_gradient_is_cut_to_a_multiple_of_the_usual_length() -> None:
    model = small()
    optimizer = Adam(model, clip=5.0)
    size = sum(p.numel() for p in model.parameters())

    def step(number: int, length: float) -> float:
        for p in model.parameters():
            p.grad = torch.full_like(p, length / math.sqrt(size))
        return float(optimizer.step(1e-3, number))

    for number in range(200):
        assert step(number, 2.0) == pytest.approx(2.0, rel=1e-5)
    assert float(optimizer.mean) == pytest.approx(2.0, rel=1e-5)
    momentum = math.hypot(*(float(first.norm()) for first in optimizer.first))
    assert step(200, 2e6) == pytest.approx(2e6, rel=1e-5)  # what is reported is the length before
    after = math.hypot(*(float(first.norm()) for first in optimizer.first))
    assert after == pytest.approx(0.9 * momentum + 0.1 * 5 * 2.0, rel=1e-4)
    assert float(optimizer.mean) == pytest.approx(2.0 + 0.01 * (10 - 2), rel=1e-4)
    for number in range(201, 1200):  # lasting growth is followed
        step(number, 100.0)
    assert float(optimizer.mean) == pytest.approx(100.0, rel=1e-2)


def test_frozen_parameters_stay_and_a_model_without_free_ones_is_refused() -> None:
    model = small()
    model.likelihood.network.requires_grad_(False)
    before = weights(model.likelihood.network)
    said(model)
    assert same(weights(model.likelihood.network), before)
    model.requires_grad_(False)
    with pytest.raises(vd.InputError, match="without parameters to train"):
        said(model)


# -- epochs --------------------------------------------------------------------------------------------------------


def test_events_tell_the_story_in_order() -> None:
    x = table(160)
    events = said(small(x), x, settings=settings(batch_size=2, epochs=2))
    kinds = [type(event).__name__ for event in events]
    assert kinds == ["Started", "Progress", "EpochDone", "Progress", "EpochDone", "Finished"]
    assert [event.step for event in events] == [0, 32, 64, 96, 128, 128]
    parameters = sum(p.numel() for p in small(x).parameters())
    assert events[0] == Started(0, 2, 0, 64, train_rows=128, validation_rows=16, parameters=parameters)
    assert events[-1] == Finished(128, 2, 2, "all 2 epochs done")


def test_stretches_cover_an_epoch_in_nearly_equal_parts() -> None:
    x = table(160)
    events = said(small(x), x, settings=settings(batch_size=1, epochs=1))
    assert [event.step for event in events if isinstance(event, Progress | EpochDone)] == [42, 85, 128]


def test_the_model_ends_with_its_best_weights() -> None:
    x = np.random.default_rng(0).normal(size=(60, 12))
    model = vd.recipes.vae(x, latent=4, hidden=(64,))
    asked = settings(epochs=400, learning_rate=0.02, patience=5, plateau=2)
    best: dict[str, Tensor] = {}
    done: list[EpochDone] = []
    for event in vd.training.events(model, x, settings=asked):
        if isinstance(event, EpochDone):
            done.append(event)
            best = weights(model) if event.best else best
    assert isinstance(event, Finished)
    bounds = [epoch.validation["bound"] for epoch in done]
    assert event.best_epoch == 1 + int(np.argmax(bounds)) == len(done) - 5
    assert event.reason == "no better validation bound for 5 epochs"
    assert same(weights(model), best)
    assert not model.training


def test_the_best_weights_are_best_in_what_is_maximised() -> None:
    """With a large β the bound itself is best before the rate has been pressed out of the model."""
    x = 3 * table()
    done = epochs(said(small(x), x, objective=ELBO(beta=30.0), settings=settings(epochs=40, learning_rate=0.02)))
    bounds, surrogates = ([epoch.validation[name] for epoch in done] for name in ("bound", "surrogate"))
    best = [epoch.epoch for epoch in done if epoch.best]
    assert best[-1] == 1 + int(np.argmax(surrogates))
    assert best[-1] != 1 + int(np.argmax(bounds))
    last = done[-1].validation
    assert last["surrogate"] == pytest.approx(last["reconstruction"] - 30 * last["rate"], rel=1e-5)
    assert last["bound"] == pytest.approx(last["reconstruction"] - last["rate"], rel=1e-5)


def test_patience_counts_after_the_warm_up_and_no_epoch_before_is_best() -> None:
    """Nothing moves: the latest weights are taken until β stands at its end, and the first after that is the best."""
    still = settings(epochs=30, learning_rate=1e-30, patience=3, plateau=1)
    done = epochs(said(small(), settings=still, objective=ELBO(beta=Warmup(10))))  # three steps per epoch
    assert [epoch.best for epoch in done] == [True, True, True, True, False, False, False]
    assert [epoch.learning_rate < 1e-30 * 0.99 for epoch in done] == [True, False, False, False, False, True, True]


@pytest.mark.parametrize(("steps", "fits"), [(9, True), (10, False)])
def test_a_warm_up_that_would_not_end_is_refused(steps: int, fits: bool) -> None:
    model, asked = small(), ELBO(beta=Warmup(steps))
    if fits:
        assert isinstance(said(model, objective=asked)[-1], Finished)
    else:
        with pytest.raises(vd.InputError, match=r"a warm-up of 10 steps in a run of 9; .* Train for more epochs"):
            said(model, objective=asked)


def test_weights_of_rows_weigh() -> None:
    """Validation means are weighted means; rows of weight 0 train nothing."""
    x, parts = table(), standard_split(ROWS)
    weight = np.random.default_rng(2).uniform(0.5, 2, ROWS)
    weight[parts.train[::2]] = 0
    other = x.copy()
    other[parts.train[::2]] -= 3
    first, second = (small(x, train_rows=parts.train[1::2]) for _ in range(2))
    events = said(first, x, weight=weight)
    assert [epoch.validation for epoch in epochs(said(second, other, weight=weight))] == [
        epoch.validation for epoch in epochs(events)
    ]
    assert same(weights(first), weights(second))
    assert events != said(small(x, train_rows=parts.train[1::2]), x)

    rows = rows_of(vd.data.load(x), parts.validation, first.device)
    batch = rows.fixed(vd.Key(0), first.dtype)
    problem = first.given(batch)
    outcome = ELBO()(problem, problem.noise(vd.Key(0).fold("training").fold("validation"), 1), 0)
    by_hand = np.average(outcome.bound.detach().numpy(), weights=weight[parts.validation])
    assert epochs(events)[-1].best  # so that the model's weights are those of the last epoch
    assert epochs(events)[-1].validation["bound"] == pytest.approx(by_hand, rel=1e-5)


def test_training_means_are_means_over_rows() -> None:
    still = settings(epochs=1, learning_rate=1e-30)
    train = epochs(said(small(), settings=still))[0].train
    assert train["bound"] == pytest.approx(train["reconstruction"] - train["rate"], rel=1e-5)
    weighted = epochs(said(small(), settings=still, weight=np.full(ROWS, 2.0)))[0].train
    assert weighted == pytest.approx(train, rel=1e-5)


def test_cells_that_were_not_observed_may_hold_anything() -> None:
    x = table()
    mask = np.random.default_rng(1).uniform(size=x.shape) < 0.7
    first, second = small(x), small(x)
    assert said(first, np.where(mask, x, np.nan), mask=mask) == said(second, np.where(mask, x, 1e6), mask=mask)
    assert same(weights(first), weights(second))
    images = np.random.default_rng(0).integers(0, 2, (ROWS, 4, 4))
    seen = np.random.default_rng(1).uniform(size=images.shape) < 0.7
    assert isinstance(said(small(images), np.where(seen, images, 9), mask=seen)[-1], Finished)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mask": np.ones((ROWS, 4), bool)}, r"mask has shape \(60, 4\); expected \(60, 5\)"),
        ({"context": np.ones((ROWS - 1, 2))}, r"context has shape \(59, 2\); expected \(60, 2\)"),
        ({"context": np.ones(ROWS)}, "context has one dimension"),
        ({"weight": np.ones(ROWS + 1)}, r"weight has shape \(61,\); expected \(60,\)"),
        ({"weight": np.arange(ROWS) - 1.0}, "weight is below 0 in row 0; expected weights of 0 or more"),
        ({"weight": np.zeros(ROWS)}, "weight is 0 in all rows"),
        ({"weight": np.full(ROWS, np.nan)}, "weight has 60 cells with NaN or infinity, in rows 0, 1"),
        ({"split_rows": Split(np.arange(50), np.arange(0), np.arange(50, 60))}, "validation rows"),
        ({"split_rows": Split(np.arange(50), np.arange(49, 55), np.arange(55, 60))}, "row 49"),
        ({"split_rows": Split(np.arange(50), np.arange(50, 60), np.arange(60, 61))}, "row 60"),
        ({"x": np.zeros((ROWS, 7))}, "cannot encode a row of shape"),
    ],
)
def test_arguments_that_do_not_suit_are_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(vd.InputError, match=message) as caught:
        said(small(), **given)
    assert "\n" not in str(caught.value)


# -- stopping ------------------------------------------------------------------------------------------------------


def test_stop_ends_at_the_next_step_with_the_best_weights_so_far() -> None:
    model, stop = small(), threading.Event()
    best: dict[str, Tensor] = {}
    stream = vd.training.events(model, table(), settings=settings(epochs=9), stop=stop)
    for event in stream:
        if isinstance(event, EpochDone):
            best = weights(model) if event.best else best
        if event.step == 6:
            break
    stop.set()
    with pytest.raises(vd.Interrupted, match="interrupted at step 6; the model holds its best weights so far"):
        next(stream)
    assert same(weights(model), best)
    assert not model.training


def test_signals_set_the_flag_and_a_second_ctrl_c_interrupts() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    for number in (signal.SIGINT, signal.SIGTERM):
        with graceful() as stop:
            assert not stop.is_set()
            os.kill(os.getpid(), number)
            assert stop.is_set()
            os.kill(os.getpid(), signal.SIGTERM)  # asks for the same again
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_outside_the_main_thread_no_signal_is_caught() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def watch() -> None:
        with graceful() as stop:
            seen.append((stop.is_set(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


def test_fit_shows_progress_unless_told_not_to(capfd: pytest.CaptureFixture[str]) -> None:
    history = vd.fit(small(), table(), settings=settings())
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "epoch" in shown.err
    assert "3/3" in shown.err
    assert "validation bound" in shown.err
    silent = vd.fit(small(), table(), settings=settings(), progress=False)
    assert capfd.readouterr() == ("", "")
    assert [len(found.epochs) for found in (history, silent)] == [3, 3]
    assert history.epochs == silent.epochs
    assert history.finished == silent.finished
    assert dataclasses.asdict(history.split).keys() == {"train", "validation", "test"}
    whole = np.concatenate((history.split.train, history.split.validation, history.split.test))
    assert sorted(whole) == list(range(ROWS))


# -- no synchronisation --------------------------------------------------------------------------------------------


class Synchronising(TorchDispatchMode):
    """Collects the operations that make Python wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("objective", [ELBO(beta=Warmup(3), free_bits=0.1), vd.objectives.IWAE(samples=2)])
def test_a_step_never_waits_for_the_device(objective: Objective, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).integers(0, 256, (ROWS, 4, 4)).astype(np.uint8)
    dataset, model, parts = vd.data.load(x), small(x, binarise=True), standard_split(ROWS)
    rows = [rows_of(dataset, part, model.device, binarise=True) for part in (parts.train, parts.validation)]
    loop = Loop(model, InMemory(rows[0], 16), rows[1], objective, settings(), vd.Key(0))
    epoch, called = loop.feed.epoch(0, 0, vd.Key(0)), []

    def noticed(name: str, original: Any, self: Tensor, *args: Any) -> Any:
        called.append(name)
        return original(self, *args)

    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__", "__array__"):
        noticing = functools.partial(noticed, name, getattr(Tensor, name))
        monkeypatch.setattr(Tensor, name, functools.partialmethod(noticing))
    with Synchronising() as mode:
        loop._step(epoch)
        assert called == mode.found == []
        loop._stretch(epoch)
    assert called.count("tolist") == 2  # once at the boundary and once for the validation rows: the end of an epoch
