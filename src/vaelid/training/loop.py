"""The training loop: a generator of events whose state is a snapshot at every boundary.

Steps run in stretches of at most `STRETCH`, with no synchronisation between device and Python inside one. At a
boundary the recorded losses are looked at once. All well: the state is copied into the snapshot. Not so: the
snapshot comes back, the stretch is replayed up to the step that went wrong to name the tensor and the rows, the rate
is lowered, and training goes on. Order of rows and noise are functions of (key, epoch) and (key, step), so replay is
exact, and so is going on from a checkpoint, which is a snapshot on disk. Where rows come from is a `Feed`'s affair.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import math
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NoReturn, final

import torch
from torch import Tensor

from vaelid.data.rows import Rows
from vaelid.errors import InputError, Interrupted, RunError
from vaelid.model import VAE, evaluating
from vaelid.objectives import Objective
from vaelid.random import Key
from vaelid.training import checkpoints
from vaelid.training.adam import Adam
from vaelid.training.checkpoints import Checkpoints
from vaelid.training.events import Compiled, EpochDone, Event, Finished, Progress, RolledBack, Saved, Started, Stream
from vaelid.training.feed import Epoch, Feed, Unreadable, mass
from vaelid.training.recovery import ATTEMPTS, LOWER, Failed, culprit, inspect, rows_at_fault
from vaelid.training.schedule import learning_rate
from vaelid.training.settings import Settings
from vaelid.training.step import TERMS, Step, settled, sums
from vaelid.types import Batch

STRETCH = 50  # steps between boundaries: one copy of the state in 50 steps costs about 1 % of them
CHUNK = 4096  # draws per pass over validation rows


@dataclass
class State:
    """Everything about the loop that is not a tensor; plain numbers, saved as JSON.

    Attributes:
        step, epoch: steps and epochs done.
        position: steps done in this epoch.
        sums: this epoch's `TERMS`, weighted and summed over the rows seen.
        rate_scale: what plateaus and failures multiplied the rate by.
        failures: failures since the last boundary.
        best, best_epoch: the best validation surrogate and its epoch.
        since_best, since_drop: epochs since then, and since the rate was lowered.
        highest_loss, lowest_loss: extreme losses of the stretches that went well.
        said: events of progress so far: `Progress`, `EpochDone`, `RolledBack`.
        asked: epochs asked for.
        compiled: whether steps are compiled.
        stopped: why training stopped early, if it did.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    sums: tuple[float, ...] = (0.0,) * len(TERMS)
    rate_scale: float = 1.0
    failures: int = 0
    best: float = -math.inf
    best_epoch: int = 0
    since_best: int = 0
    since_drop: int = 0
    highest_loss: float = -math.inf
    lowest_loss: float = math.inf
    said: int = 0
    asked: int = 0
    compiled: bool = False
    stopped: str = ""


@final
class Loop:
    """One training run; `run` yields its events. Made by `vaelid.training.events`."""

    def __init__(
        self,
        model: VAE,
        feed: Feed,
        validation: Rows,
        objective: Objective,
        settings: Settings,
        key: Key,
        store: Checkpoints | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.model, self.feed, self.validation = model, feed, validation
        self.objective, self.settings, self.key = objective, settled(settings, model, objective, feed.steps), key
        self.store, self.stop = store, stop or threading.Event()
        self.device, self.dtype = model.device, model.dtype
        steps, compiled = feed.steps or 0, bool(self.settings.compile)
        stretches = math.ceil(steps / STRETCH)  # of nearly equal length
        self.boundaries = [number * steps // stretches for number in range(1, stretches + 1)]
        self.optimizer = Adam(model, self.settings.clip, self.settings.average, flat=compiled)
        self.take = Step(model, objective, self.optimizer, self.settings)
        self.state = State(asked=settings.epochs, compiled=compiled)
        self.live = {f"model.{name}": value for name, value in model.state_dict().items()} | self.optimizer.tensors()
        self.snapshot = {name: value.detach().clone() for name, value in self.live.items()}
        self.best = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.kept = dataclasses.replace(self.state)
        self.held_out, self.mass = validation.fixed(key.fold("binarise"), self.dtype), mass(validation.batch)
        self.resumed = False
        self.best_saved = -1  # the epoch whose weights best.safetensors holds
        self.saved_at = time.monotonic()

    def check(self) -> None:
        """Look at the rows of the first step to come, and ask the objective about one of them.

        Raises:
            InputError: they cannot be read, or do not suit the model, or the model does not suit the objective.
        """
        epoch = self._open()
        if not epoch.over(self.state.position):
            batch = epoch.batch(self.state.position, self.key, self.dtype)
            self.model.check(batch)
            with evaluating(self.model):
                problem = self.model.given(batch.take(slice(0, 1)))
                self.objective(problem, problem.noise(self.key, self.objective.samples), 0)

    # -- state ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _keep(self) -> None:
        """Boundary: the live state becomes the snapshot."""
        for name, value in self.live.items():
            self.snapshot[name].copy_(value)
        self.kept = dataclasses.replace(self.state)

    @torch.no_grad()
    def _restore(self) -> None:
        for name, value in self.live.items():
            value.copy_(self.snapshot[name])
        self.state = dataclasses.replace(self.kept)

    @torch.no_grad()
    def _start_from_best(self) -> None:
        """Put the best weights into the snapshot, with a fresh optimiser."""
        for name, value in self.snapshot.items():
            if name.startswith("model."):
                value.copy_(self.best[name.removeprefix("model.")])
            elif name.startswith("average."):
                value.copy_(self.best[name.removeprefix("average.")])
            elif name.startswith("adam."):
                value.zero_()

    @torch.no_grad()
    def _take_best(self) -> None:
        """Leave the model with its best weights so far, or those of the last boundary where no epoch is over."""
        for name, value in self.model.state_dict().items():
            value.copy_(self.best[name] if self.kept.best_epoch else self.snapshot[f"model.{name}"])
        self.optimizer.clear()
        self.optimizer.separate()
        self.model.eval()

    def save(self) -> Saved | None:
        """Write the snapshot and the best weights to disk, as one file; the best weights also as one of their own.

        Raises:
            RunError: the disk refuses; the checkpoint before stays whole.
        """
        if self.store is None:
            return None
        kept = self.kept
        best = {f"best.{name}": value for name, value in self.best.items()}
        with self.store.guarded("the checkpoint"):
            if kept.best_epoch != self.best_saved:
                checkpoints.write(self.store.best, self.best, {"epoch": kept.best_epoch, "surrogate": kept.best})
                self.best_saved = kept.best_epoch
            checkpoints.write(self.store.last, self.snapshot | best, dataclasses.asdict(kept))
        self.saved_at = time.monotonic()
        return Saved(kept.step, str(self.store.last))

    def load(self) -> None:
        """Go on from the checkpoint on disk.

        A run that had stopped early or given up, and is now asked for more, gets its full patience again.

        Raises:
            InputError: there is none, it is damaged, or another model's.
        """
        if self.store is None:
            raise InputError("no checkpoint folder to resume from", "checkpoints=Checkpoints(folder)")
        tensors, state = checkpoints.read(self.store.last, str(self.device))
        mine = self.snapshot | {f"best.{name}": value for name, value in self.best.items()}
        fields = {field.name for field in dataclasses.fields(State)}
        shapes = {name: value.shape for name, value in mine.items()}
        if {name: value.shape for name, value in tensors.items()} != shapes or set(state) != fields:
            raise InputError(f"{self.store.last} does not fit the model", "the checkpoint of this model")
        for name, value in tensors.items():
            mine[name].copy_(value)
        self.kept = State(**state | {"sums": tuple(state["sums"])})
        if self.settings.epochs > self.kept.asked:
            self.kept.asked = self.settings.epochs
            if self.kept.stopped:
                self.kept.stopped, self.kept.since_best = "", 0
        if self.kept.failures >= ATTEMPTS:
            self.kept.failures = 0
        self._restore()
        self.resumed = True

    # -- steps ---------------------------------------------------------------------------------------------------

    def _rate(self) -> float:
        return learning_rate(self.settings, self.state.step, self.feed.steps or 1, self.state.rate_scale)

    def _open(self) -> Epoch:
        """The epoch at hand."""
        return self.feed.epoch(self.state.epoch, self.state.position, self.key)

    def _inputs(self, epoch: Epoch) -> tuple[Batch, Tensor]:
        """The rows of the step to come and its noise."""
        state, key = self.state, self.key
        batch = epoch.batch(state.position, key.fold("binarise", state.step), self.dtype)
        shape = (self.objective.samples, batch.rows, self.model.prior.latent)
        return batch, key.fold("train", state.step).normal(shape, device=self.device, dtype=self.dtype)

    def _step(self, epoch: Epoch) -> Tensor:
        """One optimiser step; see `Step`."""
        batch, u = self._inputs(epoch)
        record = self.take(batch, u, self._rate(), self.state.step)
        self.state.step += 1
        self.state.position += 1
        return record

    def _compile(self, epoch: Epoch) -> Compiled:
        """Compile the step for full batches, or remember that it cannot be."""
        began = time.monotonic()
        with self._module_noise():
            failure = self.take.compile(*self._inputs(epoch))
        self.state.compiled = self.kept.compiled = not failure
        return Compiled(self.state.step, round(time.monotonic() - began, 1), failure)

    def _boundary(self) -> int:
        """Where in the epoch the stretch at hand ends, if the epoch is that long."""
        later = bisect.bisect(self.boundaries, self.state.position)
        return self.boundaries[later] if later < len(self.boundaries) else self.state.position + STRETCH

    def _stretch(self, epoch: Epoch) -> Event:
        """Steps up to the next boundary, and what to say of them.

        Raises:
            Failed: a loss, a gradient, a weight or the validation bound was not finite, or the loss exploded.
            Interrupted: ``stop`` was set.
            Unreadable: a batch could not be had.
        """
        self.model.train()
        record = []
        end = self._boundary()
        with self._module_noise():
            while self.state.position < end and not epoch.over(self.state.position):
                record.append(self._step(epoch))
                self._look_for_stop()
        size = self.optimizer.size().to(self.dtype)
        *rows, last = torch.cat((torch.stack(record), size.expand(1, len(record[0])))).double().cpu().tolist()
        losses, lengths, *terms = zip(*rows, strict=True)
        state = self.state
        if not math.isfinite(state.highest_loss):
            state.highest_loss = state.lowest_loss = losses[0]
        inspect(losses, lengths, state.highest_loss, state.lowest_loss, self.held_out.x[0].numel())
        if not math.isfinite(last[0]):
            raise Failed("a step made a weight infinite", len(losses) - 1)
        state.highest_loss, state.lowest_loss = max(state.highest_loss, *losses), min(state.lowest_loss, *losses)
        state.sums = tuple(total + sum(term) for total, term in zip(state.sums, terms, strict=True))
        if epoch.over(state.position):
            with self._averaged():
                return self._end_epoch(epoch.mass())
        return Progress(state.step, state.epoch, -sum(losses) / len(losses))

    def _module_noise(self) -> AbstractContextManager[None]:
        """Noise for modules of the user's that draw their own (dropout): seeded for a stretch by its first step, so
        that it can be replayed."""
        return self.key.fold("modules", self.state.step).seeding(self.device)

    def _look_for_stop(self) -> None:
        if not self.stop.is_set():
            return
        where = f"interrupted at step {self.kept.step}"
        if self.store is None:
            raise Interrupted(f"{where}; the model holds its best weights so far, nothing was saved")
        raise Interrupted(f"{where}; the state is saved. Go on with: {self.store.resume_command}")

    def _roll_back(self, epoch: Epoch, failed: Failed) -> RolledBack:
        """Restore the snapshot, replay to name the tensor and the rows, restore again, lower the rate."""
        tensor, rows, step, where = failed.tensor, failed.rows, self.state.step, ""
        if failed.index is not None:
            self._restore()
            with self._module_noise():
                for _ in range(failed.index):
                    self._step(epoch)
                where = epoch.where(self.state.position)
                batch, u = self._inputs(epoch)
                _, outcome = self.take.eager(batch, u, self._rate(), self.state.step)
            self.state.step += 1
            tensor, rows, step = culprit(outcome, self.optimizer), rows_at_fault(outcome, batch.ids()), self.state.step
            if failed.index == 0 and self.kept.failures:
                self._start_from_best()  # the snapshot itself is past saving
        self._restore()
        self.state.failures += 1
        self.state.rate_scale *= LOWER
        return RolledBack(self.state.step, step, failed.reason + where, tensor, rows, self._rate())

    # -- epochs --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """Lend the model the running mean of its weights, where one is kept."""
        with torch.no_grad():
            weights = [p.clone() for p in self.optimizer.parameters] if self.optimizer.average else []
            for p, mean in zip(self.optimizer.parameters, self.optimizer.average, strict=False):
                p.copy_(mean)
        try:
            yield
        finally:
            with torch.no_grad():
                for p, value in zip(self.optimizer.parameters, weights, strict=False):
                    p.copy_(value)

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Mean terms and surrogate on the validation rows, under the same noise at every epoch."""
        self.model.eval()
        key, samples = self.key.fold("validation"), self.objective.samples
        totals = [0.0] * (1 + len(TERMS))
        size = max(1, CHUNK // samples)
        for first in range(0, self.held_out.rows, size):
            batch = self.held_out.take(slice(first, first + size))
            problem = self.model.given(batch)
            outcome = self.objective(problem, problem.noise(key, samples), self.state.step)
            share = batch.rows if batch.weight is None else batch.weight.sum()
            found = torch.stack((outcome.surrogate * share, *sums(outcome, batch))).double().tolist()
            if not math.isfinite(found[0]):
                reason, tensor = "the surrogate of validation rows is not finite", culprit(outcome, self.optimizer)
                raise Failed(reason, None, tensor, rows_at_fault(outcome, batch.ids()))
            totals = [total + value for total, value in zip(totals, found, strict=True)]
            self._look_for_stop()
        return dict(zip(("surrogate", *TERMS), (total / self.mass for total in totals), strict=True))

    def _end_epoch(self, seen: float) -> EpochDone:
        """Validate, choose the best weights, and look after the schedule; ``seen`` is the mass of the training rows.

        Until the objective is settled the latest weights are the best: surrogates before and after cannot be compared.
        """
        state, settings = self.state, self.settings
        validation, rate = self._validate(), self._rate()
        train = dict(zip(TERMS, (total / seen for total in state.sums), strict=True))
        state.epoch, state.position, state.sums = state.epoch + 1, 0, (0.0,) * len(TERMS)
        settled, score = state.step > self.objective.settled_at, validation["surrogate"]
        better = not settled or score > state.best
        if better:
            state.best = score if settled else -math.inf
            state.best_epoch, state.since_best, state.since_drop = state.epoch, 0, 0
            for name, value in self.best.items():
                value.copy_(self.live[f"model.{name}"])
        else:
            state.since_best, state.since_drop = state.since_best + 1, state.since_drop + 1
            if settings.schedule == "plateau" and state.since_drop >= settings.plateau:
                state.rate_scale, state.since_drop = state.rate_scale * settings.factor, 0
            if settings.patience and state.since_best >= settings.patience:
                state.stopped = f"no better validation bound for {settings.patience} epochs"
        return EpochDone(state.step, state.epoch, train, validation, rate, better)

    def run(self) -> Stream:
        """Train to the end, yielding events; the model then holds its best weights, and so it does after an error.

        Raises:
            Interrupted: ``stop`` was set; the last boundary is saved.
            RunError: a stretch failed `ATTEMPTS` times, a batch could not be had, or the disk refused a checkpoint.
        """
        state, settings = self.state, self.settings
        try:
            saved = None if self.resumed else self.save()
            yield Started(
                state.step,
                settings.epochs,
                state.epoch,
                self.feed.steps,
                self.feed.rows,
                len(self.validation),
                sum(p.numel() for p in self.optimizer.parameters),
            )
            if saved is not None:
                yield saved
            while self.state.epoch < settings.epochs and not self.state.stopped:
                yield from self._epoch()
            if (saved := self.save()) is not None:
                yield saved
        except (Interrupted, GeneratorExit):
            self.save()
            raise
        finally:
            self._take_best()
            self.feed.close()
        reason = self.state.stopped or f"all {settings.epochs} epochs done"
        yield Finished(self.state.step, self.state.epoch, self.state.best_epoch, reason)

    def _epoch(self) -> Stream:
        """Stretches up to the end of the epoch, or as many as a rollback leaves of it."""
        epoch, event = self._open(), Event(0)
        while not isinstance(event, EpochDone):
            try:
                if self._to_compile(epoch):
                    yield self._compile(epoch)
                event = self._stretch(epoch)
                self.state.failures = 0
            except Failed as failed:
                event = self._roll_back(epoch, failed)
            except Unreadable as error:
                self._look_for_stop()  # Ctrl-C may have ended the loader's workers first
                self._end_unread(error)
            self.state.said += 1
            self._keep()
            epoch.forget(self.state.position)
            yield event
            if isinstance(event, RolledBack) and self.state.failures >= ATTEMPTS:
                self._give_up(event)
            if time.monotonic() - self.saved_at >= self.settings.save_every and (saved := self.save()) is not None:
                yield saved

    def _to_compile(self, epoch: Epoch) -> bool:
        """Whether the step is to be compiled now, for batches like the one to come."""
        position = self.state.position
        wanted = self.state.compiled and self.take.graph is None
        return wanted and not epoch.over(position) and epoch.full(position)

    def _end_unread(self, error: Unreadable) -> NoReturn:
        self.save()
        further = "" if self.store is None else f" and the state is saved. Go on with: {self.store.resume_command}"
        raise RunError(
            f"training stopped after step {self.kept.step}: {str(error).rstrip('.')}. "
            f"The model holds its best weights so far{further}"
        ) from error

    def _give_up(self, event: RolledBack) -> None:
        self.save()
        rows = f", rows {', '.join(map(str, event.rows[:5]))}" if event.rows else ""
        raise RunError(
            f"training stopped at step {event.failed_step}: {event.reason} ({event.tensor}{rows}), {ATTEMPTS} times "
            "although the rate was lowered each time. The model holds its best weights so far. "
            "Look at the rows named, or try another likelihood or a lower rate"
        )
