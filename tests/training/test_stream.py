"""Training on a PyTorch ``DataLoader``: the bits of rows in memory, resumed and replayed, and what is refused."""

from __future__ import annotations

import gc
import itertools
import math
import multiprocessing
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, get_worker_info

import vaelid as vd
from tests.support import refused
from vaelid.cli import main
from vaelid.data import Split, batches
from vaelid.errors import InputError, Interrupted
from vaelid.runs import Run, scored_rows
from vaelid.training import Checkpoints, EpochDone, Event, Finished, RolledBack, Settings, Started, feed
from vaelid.training.step import Step

ROWS, BATCH, STEPS = 150, 2, 75  # steps in an epoch; boundaries after 37 and 75


def table(rows: int = ROWS + 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 2)) @ rng.normal(size=(2, 5)) + 0.3 * rng.normal(size=(rows, 5))
    return x.astype(np.float32)


X = table()
VALIDATION, TEST, TRAIN = X[:20], X[20:40], X[40:]
PARTS = Split(np.arange(40, len(X)), np.arange(20), np.arange(20, 40))


class Moving(Dataset[Tensor]):
    """Rows that are moved at random whenever they are read, by PyTorch's global generator."""

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(TRAIN[index]) + 0.1 * torch.randn(5)

    def __len__(self) -> int:
        return ROWS


class Endless(IterableDataset[Any]):
    """Items one after another, dealt to the workers there are; nobody knows how many."""

    def __init__(self, items: Any) -> None:
        self.items, self.opened = items, 0

    def __iter__(self) -> Iterator[Any]:
        self.opened += 1
        info = get_worker_info()
        yield from self.items if info is None else self.items[info.id :: info.num_workers]


class Epochs:
    """The batches of training in memory: the order that each epoch gives the rows."""

    def __init__(self, rows: int, size: int, seed: int = 0) -> None:
        self.rows, self.size, self.key, self.epoch = rows, size, vd.Key(seed).fold("training"), 0

    def __iter__(self) -> Iterator[list[int]]:
        order = self.key.fold("order", self.epoch).permutation(self.rows).tolist()
        self.epoch += 1
        return (order[first : first + self.size] for first in range(0, self.rows, self.size))

    def __len__(self) -> int:
        return math.ceil(self.rows / self.size)


class Named(Dataset[dict[str, Tensor]]):
    """Rows as dicts."""

    def __init__(self, **columns: np.ndarray) -> None:
        self.columns = {name: torch.from_numpy(values) for name, values in columns.items()}

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: values[index] for name, values in self.columns.items()}

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def loader(source: Any = TRAIN, **given: Any) -> DataLoader[Any]:
    if isinstance(source, np.ndarray):
        source = TensorDataset(torch.from_numpy(source), torch.arange(len(source)))
    return DataLoader(source, **{"batch_size": BATCH, "shuffle": not isinstance(source, IterableDataset)} | given)


def chunks(size: int = BATCH, x: np.ndarray = TRAIN) -> list[Tensor]:
    return list(torch.from_numpy(x).split(size))


def small(**given: Any) -> vd.VAE:
    return vd.recipes.vae(VALIDATION, **{"latent": 2, "hidden": (8,)} | given)


def with_dropout() -> vd.VAE:
    model = small()
    model.posterior.network = nn.Sequential(nn.Dropout(0.2), model.posterior.network)
    return model


def conditional() -> vd.VAE:
    return small(context=2)


def settings(**changed: Any) -> Settings:
    return Settings(**{"epochs": 3, "batch_size": BATCH, "warmup_steps": 20, "save_every": 0, "plateau": 1} | changed)


def stream(model: vd.VAE, x: Any, **given: Any) -> Iterator[Event]:
    return vd.training.events(model, x, **{"settings": settings(), "validation": VALIDATION} | given)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def done(events: Any) -> list[EpochDone]:
    return [event for event in events if isinstance(event, EpochDone)]


# -- the same bits -------------------------------------------------------------------------------------------------


def test_equal_loaders_equal_bits_whatever_was_drawn_before() -> None:
    runs = []
    for seed, number in ((0, 1), (0, 2), (1, 1)):
        model = with_dropout()
        torch.manual_seed(number)
        before = torch.get_rng_state()
        events = list(stream(model, loader(Moving()), seed=seed))
        assert torch.equal(torch.get_rng_state(), before)
        runs.append((weights(model), events))
    assert runs[0][1] == runs[1][1] != runs[2][1]
    assert same(runs[0][0], runs[1][0])
    assert not same(runs[0][0], runs[2][0])


@pytest.mark.parametrize("kind", ["plain", "mask, context and weight", "binarised", "dropout"])
def test_the_batches_of_memory_give_the_bits_of_memory(kind: str) -> None:
    rng = np.random.default_rng(1)
    x, columns, build, more = X, {}, small, {}
    if kind == "mask, context and weight":
        build = conditional
        columns = {
            "mask": rng.uniform(size=X.shape) < 0.8,
            "context": rng.normal(size=(len(X), 2)).astype(np.float32),
            "weight": rng.uniform(size=len(X)).astype(np.float32),
        }
        x = np.where(columns["mask"], X, np.nan).astype(np.float32)
    if kind == "binarised":
        x = rng.integers(0, 256, (len(X), 4, 4)).astype(np.uint8)
        more = {"binarise": True}

        def build() -> vd.VAE:
            return vd.recipes.vae(x, latent=2, hidden=(8,), binarise=True)

    if kind == "dropout":
        build = with_dropout
    first, second = build(), build()
    expected = list(vd.training.events(first, x, settings=settings(batch_size=4), split_rows=PARTS, **columns, **more))
    columns = {"x": x} | columns
    train, held = ({name: values[part] for name, values in columns.items()} for part in (PARTS.train, PARTS.validation))
    events = list(stream(second, DataLoader(Named(**train), batch_sampler=Epochs(ROWS, 4)), validation=held, **more))
    assert same(weights(first), weights(second))
    assert events[1:] == expected[1:]
    assert isinstance(events[0], Started)
    assert (events[0].steps_per_epoch, events[0].train_rows, events[0].validation_rows) == (38, None, 20)


def test_workers_change_nothing_but_their_own_draws() -> None:
    runs = []
    for source, workers in ((TRAIN, 0), (TRAIN, 2), (Moving(), 1), (Moving(), 1)):
        model = small()
        list(stream(model, loader(source, num_workers=workers, batch_size=16), settings=settings(epochs=2)))
        runs.append(weights(model))
    assert same(runs[0], runs[1])
    assert same(runs[2], runs[3])
    assert not same(runs[1], runs[2])


# -- epochs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batches", "steps"),
    [(75, [37, 75]), (50, [50]), (51, [25, 51]), (1, [1])],
)
def test_an_epoch_ends_when_the_iterator_does(batches: int, steps: list[int]) -> None:
    """A length only says beforehand where the boundaries lie."""
    items = chunks()[:batches]
    known, unknown = DataLoader(items, batch_size=None), DataLoader(Endless(items), batch_size=None)  # type: ignore
    for source, ends in ((known, steps), (unknown, [min(50, batches)] + [batches] * (batches > 50))):
        events = list(stream(small(), source, settings=settings(epochs=2)))
        assert [event.step for event in events if not isinstance(event, Started | Finished)] == [
            end + epoch * batches for epoch in range(2) for end in ends
        ]
        assert isinstance(events[0], Started)
        assert events[0].steps_per_epoch == (batches if source is known else None)
        assert events[-1] == Finished(2 * batches, 2, 2, "all 2 epochs done")


@pytest.mark.parametrize("case", ["last one short", "last one dropped", "weighted"])
def test_training_means_are_over_the_rows_really_seen(case: str) -> None:
    """At a rate of nothing they are what one finds by hand."""
    still, size, seen = settings(epochs=1, learning_rate=1e-30), 60, 120 if case == "last one dropped" else ROWS
    weight = torch.linspace(0.5, 2, ROWS) if case == "weighted" else torch.ones(ROWS)
    model, more = small(), {"weight": weight.numpy()} if case == "weighted" else {}
    batches = loader(Named(x=TRAIN, **more), batch_size=size, shuffle=False, drop_last=seen == 120)
    (end,) = done(stream(model, batches, settings=still))
    total = 0.0
    for step, rows in enumerate(torch.arange(seen).split(size)):
        problem = model.given(vd.Batch(torch.from_numpy(TRAIN)[rows]))
        u = vd.Key(0).fold("training").fold("train", step).normal((1, len(rows), 2))
        bound = vd.objectives.ELBO()(problem, u, step).bound
        assert bound is not None
        total += float((weight[rows] * bound).sum().detach())
    assert end.train["bound"] == pytest.approx(total / float(weight[:seen].sum()), rel=1e-5)


def test_only_the_batches_of_a_stretch_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the one that shows that the epoch goes on."""
    kept = []

    def noting(epoch: feed._StreamedEpoch, items: Iterator[Any]) -> None:
        read(epoch, items)
        kept.append(len(epoch.kept))

    read = feed._StreamedEpoch._read
    monkeypatch.setattr(feed._StreamedEpoch, "_read", noting)
    list(stream(small(), DataLoader(chunks(1), batch_size=None), settings=settings(epochs=2)))  # type: ignore[arg-type]
    assert max(kept) == 51


# -- interrupted, resumed, rolled back -----------------------------------------------------------------------------


def with_a_worker() -> DataLoader[Any]:
    return loader(Moving(), num_workers=1)


KINDS: dict[str, tuple[Callable[[], Any], Callable[[], vd.VAE]]] = {
    "shuffled and moved": (lambda: loader(Moving()), with_dropout),
    "of unknown length": (lambda: loader(Endless(chunks()), batch_size=None), small),
    "with a worker": (with_a_worker, small),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [STEPS, STEPS + 37], ids=["end of an epoch", "middle of an epoch"])
def test_stopped_and_resumed_is_never_stopped(tmp_path: Path, kind: str, step: int) -> None:
    make, build = KINDS[kind]
    if kind == "of unknown length" and step != STEPS:
        step = STEPS + 50
    whole, model, again = build(), build(), build()
    expected = list(stream(whole, make()))
    store = Checkpoints(tmp_path)
    events = []
    for event in stream(model, make(), checkpoints=store):
        events.append(event)
        if event.step == step:
            break
    torch.manual_seed(99)
    events += stream(again, make(), checkpoints=store, resume=True)
    assert same(weights(again), weights(whole))
    kept = (EpochDone, vd.training.Progress)
    assert [e for e in events if isinstance(e, kept)] == [e for e in expected if isinstance(e, kept)]
    assert events[-1] == expected[-1]


class Failing(Dataset[Tensor]):
    """A row of these cannot be read."""

    def __init__(self, armed: bool = True) -> None:
        self.armed = armed

    def __getitem__(self, index: int) -> Tensor:
        if index == 126 and self.armed:
            raise OSError("the disk is gone")
        return torch.from_numpy(TRAIN[index])

    def __len__(self) -> int:
        return ROWS


class Refusing(vd.objectives.ELBO):
    """An objective that takes nothing."""

    def __call__(self, *_: Any) -> Any:
        raise InputError("no row suits", "another")


def left_in_the_middle() -> None:
    events = cast(Generator[Event, None, None], stream(small(), with_a_worker()))
    next(event for event in events if event.step == 37)
    assert multiprocessing.active_children()
    events.close()


def stopped() -> None:
    stop = threading.Event()
    events = stream(small(), with_a_worker(), stop=stop)
    next(event for event in events if event.step == 37)
    stop.set()
    with pytest.raises(Interrupted):
        next(events)


def failing_in_a_worker() -> None:
    events = stream(small(), loader(Failing(), shuffle=False, num_workers=1))
    refused("the DataLoader failed", lambda: list(events), vd.RunError)


def refused_by_the_objective() -> None:
    refused("no row suits", lambda: stream(small(), with_a_worker(), objective=Refusing()))


def refused_as_a_batch() -> None:
    refused("batch 0 of epoch 1", lambda: stream(small(), loader(TRAIN[:, :3], num_workers=1)))


def refused_as_validation() -> None:
    spoiled = loader(np.vstack((X[:40], np.full_like(X[:100], math.nan))), num_workers=1, shuffle=False)
    refused("batch 20 of validation", lambda: stream(small(), loader(), validation=spoiled))


ENDS = (
    left_in_the_middle,
    stopped,
    failing_in_a_worker,
    refused_by_the_objective,
    refused_as_a_batch,
    refused_as_validation,
)


@pytest.mark.parametrize("end", ENDS)
def test_a_loaders_workers_end_with_the_training(end: Callable[[], None]) -> None:
    """At once, not when garbage is collected: a notebook keeps the frames of the last error."""
    gc.collect()
    before = set(multiprocessing.active_children())
    gc.disable()
    try:
        end()
        assert set(multiprocessing.active_children()) <= before
    finally:
        gc.enable()


class Trap(nn.Module):
    """An encoder that gives NaN where the first feature is at least 5, the first time it sees one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.armed = network, True

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x)
        return torch.where((x[:, :1] >= 5) & self.armed, math.nan, out)


def test_a_batch_that_breaks_the_arithmetic_is_replayed_named_and_left_behind() -> None:
    """The loader is not asked for it again: it could not give it again."""
    items = Endless(chunks())
    items.items[60] = items.items[60].clone()
    items.items[60][1, 0] = 20.0
    model = small()
    model.posterior.network = trap = Trap(model.posterior.network)
    events = []
    for event in stream(model, DataLoader(items, batch_size=None)):
        events.append(event)
        trap.armed = trap.armed and not isinstance(event, RolledBack)
    (back,) = (event for event in events if isinstance(event, RolledBack))
    assert (back.step, back.failed_step, back.rows) == (50, 61, [121])
    assert back.reason == "the loss is not finite in batch 60 of epoch 1"
    assert items.opened == 3
    assert events[-1] == Finished(3 * STEPS, 3, 3, "all 3 epochs done")
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())


def broken(number: int, batch: Any) -> list[Any]:
    """Batches one of which is something else."""
    items: list[Any] = chunks()
    items[number] = batch
    return items


@pytest.mark.parametrize(
    ("bad", "good", "reason"),
    [
        (
            lambda: DataLoader(broken(63, torch.full((2, 5), math.nan)), batch_size=None),
            lambda: DataLoader(chunks(), batch_size=None),
            r"batch 63 of epoch 1: x has 10 cells with NaN or infinity, in rows 0, 1 \(first: nan in row 0, column 0\)",
        ),
        (
            lambda: loader(Failing(), shuffle=False),
            lambda: loader(Failing(armed=False), shuffle=False),
            r"batch 63 of epoch 1: the DataLoader failed \(OSError: the disk is gone\)",
        ),
        (
            lambda: loader(Failing(), shuffle=False, num_workers=1),
            lambda: loader(Failing(armed=False), shuffle=False, num_workers=1),
            r"batch 63 of epoch 1: the DataLoader failed \(OSError: the disk is gone\)",
        ),
    ],
    ids=["NaN", "an error", "an error of a worker"],
)
def test_a_batch_that_cannot_be_had_stops_the_run_with_its_state_saved(
    tmp_path: Path, bad: Callable[[], Any], good: Callable[[], Any], reason: str
) -> None:
    path, whole, model = tmp_path / "run", small(), small()
    expected = vd.fit(whole, good(), validation=VALIDATION, settings=settings(), progress=False)
    line = refused(
        rf"training stopped after step 37: {reason}.*best weights so far and the state is saved. Go on with: ",
        lambda: vd.fit(model, bad(), validation=VALIDATION, settings=settings(), out=path, progress=False),
        vd.RunError,
    )
    assert line.endswith(f"Go on with: vaelid.resume({str(path)!r}, data=loader)")
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())
    refused("training stopped after step 37", lambda: vd.resume(path, data=bad(), progress=False), vd.RunError)
    again, history = vd.resume(path, data=good(), progress=False)
    assert same(weights(again), weights(whole))
    assert history.epochs == expected.epochs


def test_a_loader_that_became_shorter_is_noticed(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    for event in stream(small(), DataLoader(chunks(), batch_size=None), checkpoints=store):  # type: ignore[arg-type]
        if event.step == 37:
            break
    refused(
        "epoch 1 of the DataLoader has 30 batches, of which 37 were used before; expected more",
        lambda: stream(small(), DataLoader(chunks()[:30], batch_size=None), checkpoints=store, resume=True),  # type: ignore
    )


def test_a_step_is_compiled_for_full_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where going on starts with a short one."""
    seen: list[int] = []
    monkeypatch.setattr(Step, "compile", lambda step, batch, u: seen.append(batch.rows) or "no compiler")
    items = Endless([*chunks()[:50], torch.from_numpy(TRAIN[:1])])
    given = {"settings": settings(epochs=2, compile=True), "checkpoints": Checkpoints(tmp_path)}
    with monkeypatch.context() as patch:
        patch.setattr(Step, "compile", lambda step, batch, u: "")  # as if it had worked
        for event in stream(small(), DataLoader(items, batch_size=None), **given):
            if event.step == 50 and isinstance(event, vd.training.Progress):
                break
    list(stream(small(), DataLoader(items, batch_size=None), resume=True, **given))
    assert seen == [2]


# -- runs ----------------------------------------------------------------------------------------------------------


def test_a_run_keeps_the_rows_held_out_and_is_scored_on_those_for_testing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, items, model = tmp_path / "run", Endless(chunks()), small()
    batches = DataLoader(items, batch_size=None)
    given: dict[str, Any] = {"settings": settings(batch_size=99), "progress": False}
    history = vd.fit(model, batches, validation=VALIDATION, test=TEST, out=path, **given)
    assert items.opened == 3  # not once more to look whether training could start
    assert history.split is None
    twin = small()
    assert vd.fit(twin, batches, validation=VALIDATION, **given).epochs == history.epochs
    assert same(weights(twin), weights(model))
    run = Run.open(path)
    assert run.streamed
    assert run.config.data.source == "loader"
    np.testing.assert_array_equal(run.dataset().x, X[:40])
    assert [len(part) for part in (run.split().train, run.split().validation, run.split().test)] == [0, 20, 20]
    np.testing.assert_array_equal(scored_rows(run), np.arange(20, 40))
    assert same(weights(vd.load(path)), weights(model))
    _, further = vd.resume(path, data=batches, epochs=4, progress=False)
    assert [epoch.epoch for epoch in further.epochs] == [4]
    assert further.split is None
    capsys.readouterr()
    for words in (["report"], ["evaluate"], ["info"], ["sample", "-n", "3", "--out", str(tmp_path / "new.csv")]):
        assert main([words[0], str(path), *words[1:]]) == 0
    assert "On 20 test rows" in capsys.readouterr().out
    assert main(["train", "--resume", str(path), "--epochs", "9"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert f"go on in Python: vaelid.resume('{path}', data=loader)" in told[0].replace("Go", "go")


def test_a_run_without_rows_for_testing_has_no_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, held = tmp_path / "run", {"x": VALIDATION, "context": VALIDATION[:, :2]}
    train = loader(Named(x=TRAIN, context=TRAIN[:, :2]), batch_size=32)
    vd.fit(conditional(), train, validation=held, epochs=1, out=path, progress=False)
    run = Run.open(path)
    assert run.config.training.batch_size == 32
    assert run.config.training.epochs == 1
    np.testing.assert_array_equal(run.extras()["context"], VALIDATION[:, :2])
    capsys.readouterr()
    for words in (["report", str(path)], ["evaluate", str(path)]):
        assert main(words) == 2
        assert "has no test rows" in capsys.readouterr().err
    assert main(["train", "--resume", str(path)]) == 2
    assert "was trained from a DataLoader" in capsys.readouterr().err
    drawn = vd.runs.contexts(run, 7, {}, vd.Key(0))
    assert drawn is not None
    assert {tuple(row) for row in drawn.tolist()} <= {tuple(row) for row in VALIDATION[:, :2].tolist()}


def test_rows_held_out_may_come_from_a_loader(tmp_path: Path) -> None:
    """Read once, in its order, with mask, context, weights and labels of a data set where it has them."""
    rng = np.random.default_rng(3)
    columns = {"mask": rng.uniform(size=(20, 5)) < 0.7, "weight": rng.uniform(0.5, 1, 20).astype(np.float32)}
    held = loader(Named(x=VALIDATION, **columns), batch_size=8, shuffle=False)
    first, second = small(), small()
    events = list(stream(first, loader(), validation=held))
    assert events == list(stream(second, loader(), validation={"x": VALIDATION} | columns))
    assert same(weights(first), weights(second))
    dataset = vd.data.load("digits")
    labelled = [vd.data.load(dataset.x[part].reshape(-1, 64)) for part in (slice(20), slice(20, 30))]
    model = vd.recipes.vae(labelled[0], latent=2, hidden=(8,), likelihood="gaussian")
    images = loader(dataset.x[30:130].reshape(-1, 64), batch_size=32)
    vd.fit(model, images, validation=labelled[0], test=labelled[1], epochs=1, out=tmp_path / "run", progress=False)
    assert Run.open(tmp_path / "run").dataset().x.dtype == np.uint8


# -- refused -------------------------------------------------------------------------------------------------------


def fit(x: Any, model: vd.VAE | None = None, **given: Any) -> Any:
    return vd.fit(model or small(), x, **{"validation": VALIDATION, "epochs": 1, "progress": False} | given)


def first(batch: Any, **given: Any) -> Any:
    """Training on a loader whose first batch is this one."""
    return fit(DataLoader([batch], batch_size=None, collate_fn=lambda item: item), **given)  # type: ignore[arg-type]


def binary() -> vd.VAE:
    return vd.recipes.vae(VALIDATION > 0, latent=2, hidden=(8,))


def unknown() -> Any:
    return DataLoader(Endless(chunks()), batch_size=None)


GREY = np.random.default_rng(0).integers(0, 256, (30, 4, 4)).astype(np.uint8)
OF = "batch 0 of epoch 1: "

REFUSALS: dict[str, tuple[Callable[[], Any], str]] = {
    "no validation": (
        lambda: fit(loader(), validation=None),
        "a DataLoader without rows to validate on; expected validation=, an array, a data set or another loader",
    ),
    "validation without a loader": (
        lambda: fit(X),
        "validation= beside rows that are split into .* To split rows your own way give split_rows=",
    ),
    "test without a loader": (lambda: fit(X, validation=None, test=TEST), "test= beside rows that are split"),
    "a split": (lambda: fit(loader(), split_rows=PARTS), "split_rows= beside a DataLoader; expected validation= and"),
    "mask": (lambda: fit(loader(), mask=X > 0), "mask= beside a DataLoader; expected batches that are dicts"),
    "context": (lambda: fit(loader(), context=X), "context= beside a DataLoader; expected batches that are dicts"),
    "weight": (lambda: fit(loader(), weight=X[:, 0]), "weight= beside a DataLoader; expected batches that are dicts"),
    "a cosine, unknown length": (
        lambda: fit(unknown(), settings=settings(schedule="cosine")),
        "a cosine schedule with a DataLoader whose length nobody knows; .* Give its data set a __len__",
    ),
    "a warm-up, unknown length": (
        lambda: fit(unknown(), objective=vd.objectives.ELBO(beta=vd.objectives.Warmup(9))),
        "a warm-up with a DataLoader whose length nobody knows",
    ),
    "a warm-up too long": (
        lambda: fit(loader(), objective=vd.objectives.ELBO(beta=vd.objectives.Warmup(99))),
        r"a warm-up of \d+ steps in a run of 75",
    ),
    "drops all": (lambda: fit(loader(batch_size=200, drop_last=True)), "a DataLoader without batches"),
    "gives nothing": (
        lambda: fit(DataLoader(Endless([]), batch_size=None)),
        "epoch 1 of the DataLoader has 0 batches; expected more",
    ),
    "another shape": (lambda: first(torch.zeros(2, 7)), OF + r"each row of x has shape \(7,\); expected \(5,\)"),
    "one dimension": (lambda: first(torch.zeros(5)), OF + "x has one dimension of 5 values"),
    "no rows": (lambda: first(torch.zeros(0, 5)), OF + "x is empty"),
    "infinity": (lambda: first((torch.full((2, 5), math.inf), 3)), OF + "x has 10 cells with NaN or infinity"),
    "text": (lambda: first("rows"), OF + "x is a str"),
    "an empty tuple": (lambda: first(()), OF + r"an empty tuple; expected x, or \(x, y\)"),
    "a dict without x": (
        lambda: first({"pixels": torch.zeros(2, 5)}),
        OF + "a dict with the keys pixels; expected x, image or data among them",
    ),
    "context not asked for": (
        lambda: first({"x": TRAIN[:2], "context": np.zeros((2, 3))}),
        OF + "3 columns of context; expected 0, as validation rows have",
    ),
    "no context": (
        lambda: fit(loader(), conditional(), validation={"x": VALIDATION, "context": np.zeros((20, 2))}),
        OF + "0 columns of context; expected 2",
    ),
    "context of other rows": (
        lambda: first({"x": TRAIN[:2], "context": np.zeros((3, 1))}),
        OF + "context has 3 rows; expected 2, one for each row of x",
    ),
    "weights below 0": (lambda: first({"x": TRAIN[:2], "weight": [1, -1]}), OF + "weight is below 0 in row 1"),
    "weights of other rows": (lambda: first({"x": TRAIN[:2], "weight": [1.0]}), OF + r"weight has shape \(1,\)"),
    "mask of another shape": (
        lambda: first({"x": TRAIN[:2], "mask": np.ones((2, 4))}),
        OF + r"the mask has shape \(2, 4\); expected \(2, 5\)",
    ),
    "outside the support": (
        lambda: first(torch.full((2, 5), 0.5), model=binary(), validation=VALIDATION > 0),
        OF + r"x has values that the Bernoulli likelihood cannot give, in rows 0, 1 \(first: 0.5",
    ),
    "grey levels in other units": (
        lambda: first(torch.rand(2, 4, 4), model=vd.recipes.vae(GREY, binarise=True), validation=GREY, binarise=True),
        OF + "x is float32 where grey levels go up to 255; expected integers, as validation rows are",
    ),
    "too bright": (
        lambda: first(
            torch.full((2, 4, 4), 300), model=vd.recipes.vae(GREY, binarise=True), validation=GREY, binarise=True
        ),
        OF + "x has values that the Bernoulli likelihood cannot give, in rows 0, 1",
    ),
    "validation rows of another model": (
        lambda: fit(loader(), validation=np.zeros((9, 7))),
        OF + r"each row of x has shape \(5,\); expected \(7,\)",
    ),
    "validation rows with NaN": (lambda: fit(loader(), validation=np.full((9, 5), np.nan)), "validation has 45 cells"),
    "validation loader with NaN": (
        lambda: fit(loader(), validation=DataLoader(broken(3, torch.full((2, 5), math.nan)), batch_size=None)),  # type: ignore
        "batch 3 of validation: x has 10 cells with NaN",
    ),
    "validation batches that differ": (
        lambda: fit(loader(), validation=DataLoader(broken(3, torch.zeros(2, 4)), batch_size=None)),  # type: ignore
        r"batch 3 of validation has x of shape \(4,\); expected x of shape \(5,\), as batch 0 has",
    ),
    "validation that fails": (
        lambda: fit(loader(), validation=loader(Failing(), shuffle=False)),
        r"batch 63 of validation: the DataLoader failed \(OSError: the disk is gone\)",
    ),
    "no validation batches": (
        lambda: fit(loader(), validation=DataLoader(Endless([]), batch_size=None)),
        "validation has no batches; expected at least one row",
    ),
    "validation rows that the likelihood cannot give": (
        lambda: fit(loader(), binary(), validation=VALIDATION),
        "validation has values that the Bernoulli likelihood cannot give, in rows 0, 1",
    ),
    "test of another kind": (
        lambda: fit(loader(), test={"x": TEST, "weight": np.ones(20)}),
        r"test has x of shape \(5,\), weight of shape \(\); expected x of shape \(5,\), as validation has",
    ),
    "a model that does not fit": (
        lambda: fit(loader(), vd.recipes.vae(X[:, :4], latent=2)),
        r"cannot encode a row of shape \(5,\)",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_does_not_suit_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    call, match = REFUSALS[name]
    refused(match, call)


def test_rows_held_out_have_to_be_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LARGEST", 2**10)
    endless = DataLoader(Endless(itertools.repeat(torch.zeros(10, 5))), batch_size=None)
    refused("validation has more than .* MiB of rows; .* Give fewer", lambda: fit(loader(), validation=endless))


def test_nothing_is_written_where_the_first_batch_does_not_suit(tmp_path: Path) -> None:
    refused(OF, lambda: first(torch.zeros(2, 7), out=tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


def test_going_on_takes_the_loader_where_there_was_one_and_only_there(tmp_path: Path) -> None:
    fit(loader(batch_size=50), out=tmp_path / "stream")
    vd.fit(small(), X, epochs=1, out=tmp_path / "rows", progress=False)
    files = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}

    def resume(name: str, **given: Any) -> Callable[[], Any]:
        return lambda: vd.resume(tmp_path / name, epochs=2, progress=False, **given)

    refused("was trained from a DataLoader, whose rows it does not keep; .*data=loader", resume("stream"))
    refused("data=ndarray; expected a PyTorch DataLoader", resume("stream", data=X), vd.errors.InputTypeError)
    refused("data= for .*rows, which knows its rows; .* Leave data= out", resume("rows", data=loader()))
    assert files == {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
