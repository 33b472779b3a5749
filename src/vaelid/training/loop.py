"""The training loop: a generator of events whose state is a snapshot at every boundary.

Steps run in stretches of at most `STRETCH`, with no synchronisation between device and Python inside one. At a
boundary the recorded losses are looked at once. All well: the state is copied into the snapshot. Not so: the
snapshot comes back, the stretch is replayed step by step to name what went wrong, the rate is lowered, and training
goes on. Order of rows and noise are functions of (key, epoch) and (key, step), so replay is exact, and so is going
on from a checkpoint, which is a snapshot on disk.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, final

import torch
from torch import Tensor

from vaelid.data.rows import Rows
from vaelid.errors import InputError, Interrupted, RunError
from vaelid.model import VAE
from vaelid.objectives import Objective
from vaelid.random import Key
from vaelid.training import checkpoints
from vaelid.training.checkpoints import Checkpoints
from vaelid.training.events import EpochDone, Event, Finished, Progress, RolledBack, Saved, Started
from vaelid.training.settings import Settings
from vaelid.types import Batch

STRETCH = 50  # steps between boundaries: one copy of the state in 50 steps costs about 1 % of them
ATTEMPTS = 3  # failures of the same stretch before training stops
LOWER = 0.3  # what a failure multiplies the rate by
TERMS = ("bound", "reconstruction", "rate")


@dataclass
class State:
    """Everything about the loop that is not a tensor; plain numbers, saved as JSON."""

    step: int = 0
    epoch: int = 0
    position: int = 0
    rate_scale: float = 1.0
    failures: int = 0
    best: float = -math.inf
    best_epoch: int = 0
    since_best: int = 0
    since_drop: int = 0
    highest_loss: float = -math.inf
    lowest_loss: float = math.inf
    stopped: str = ""


@final
class Loop:
    """One training run; `run` yields its events. Made by `vaelid.training.events`."""

    def __init__(
        self,
        model: VAE,
        train: Rows,
        validation: Rows,
        objective: Objective,
        settings: Settings,
        key: Key,
        store: Checkpoints | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.model, self.train, self.validation = model, train, validation
        self.objective, self.settings, self.key = objective, settings.resolved(), key
        self.store, self.stop = store, stop or threading.Event()
        self.state = State()
        self.steps_per_epoch = math.ceil(len(train) / settings.batch_size)
        planned = settings.epochs * self.steps_per_epoch
        if objective.settled_at >= planned:
            raise InputError(
                f"a warm-up of {objective.settled_at + 1} steps in a run of {planned}",
                "the objective to reach its end value before training ends",
                "train for more epochs or shorten the warm-up",
            )
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.names = [name for name, p in model.named_parameters() if p.requires_grad]
        device = model.device
        self.optimizer = torch.optim.Adam(self.parameters, lr=self.settings.learning_rate, fused=True)
        for p in self.parameters:  # state from the start, so that a snapshot has the same tensors at every step
            self.optimizer.state[p] = {
                "step": torch.zeros((), dtype=torch.float32, device=device),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": torch.zeros_like(p),
            }
        self.dtype = model.dtype
        self.norm = torch.zeros((), dtype=self.dtype, device=device)  # running mean of the gradient's length
        self.sums = torch.zeros(len(TERMS), dtype=torch.float64, device=device)  # this epoch's terms so far
        self.live = self._tensors()
        self.snapshot = {name: value.detach().clone() for name, value in self.live.items()}
        self.best = {name: value.clone() for name, value in self.snapshot.items() if name.startswith("model.")}
        self.kept = dataclasses.replace(self.state)
        self.held_out = validation.fixed(key.fold("binarise"), self.dtype)
        self.saved_at = time.monotonic()

    # -- state ---------------------------------------------------------------------------------------------------

    def _tensors(self) -> dict[str, Tensor]:
        named = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for name, p in zip(self.names, self.parameters, strict=True):
            named |= {f"adam.{name}.{slot}": value for slot, value in self.optimizer.state[p].items()}
        return named | {"loop.norm": self.norm, "loop.sums": self.sums}

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

    def save(self) -> Saved | None:
        """Write the snapshot (and the best weights) to disk.

        Raises:
            RunError: the disk refuses; the checkpoint before stays whole.
        """
        if self.store is None:
            return None
        state = dataclasses.asdict(self.kept)
        try:
            checkpoints.write(self.store.best, self.best, {"epoch": self.kept.best_epoch, "bound": self.kept.best})
            checkpoints.write(self.store.last, self.snapshot, state)
        except OSError as error:
            run = self.store.folder.parent
            raise RunError(
                f"the checkpoint could not be written ({error.strerror or error}); the one before it is intact. "
                f"Free some space in {run} and go on with: vaelid train --resume {run}"
            ) from error
        self.saved_at = time.monotonic()
        return Saved(self.kept.step, str(self.store.last))

    def load(self) -> None:
        """Go on from the checkpoint on disk."""
        if self.store is None:
            raise InputError("no checkpoint folder to resume from", "checkpoints=Checkpoints(folder)")
        device = str(self.model.device)
        tensors, state = checkpoints.read(self.store.last, device)
        best, _ = checkpoints.read(self.store.best, device)
        if tensors.keys() != self.snapshot.keys():
            raise InputError(f"{self.store.last} holds another model", "the checkpoint of this model")
        for name, value in tensors.items():
            self.snapshot[name].copy_(value)
        for name, value in best.items():
            self.best[name].copy_(value)
        self.kept = State(**state)
        self.kept.stopped = ""
        self._restore()

    # -- steps ---------------------------------------------------------------------------------------------------

    def _learning_rate(self) -> float:
        s, state = self.settings, self.state
        rate = s.learning_rate * state.rate_scale * min(1.0, (state.step + 1) / max(1, s.warmup_steps))
        if s.schedule == "cosine":
            share = min(1.0, state.step / ((s.horizon or s.epochs) * self.steps_per_epoch))
            rate *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))
        return rate

    def _rows(self, order: Tensor) -> Batch:
        first = self.state.position * self.settings.batch_size
        index = order[first : first + self.settings.batch_size]
        return self.train.take(index, self.key.fold("binarise", self.state.step), self.dtype)

    def _step(self, order: Tensor) -> tuple[Tensor, Tensor, Batch, Tensor | None]:
        """One optimiser step: loss, gradient length before cutting, the rows and their bound."""
        batch = self._rows(order)
        problem = self.model.given(batch)
        shape = (self.objective.samples, batch.rows, problem.noise_size)
        u = self.key.fold("train", self.state.step).normal(shape, device=batch.x.device, dtype=self.dtype)
        outcome = self.objective(problem, u, self.state.step)
        loss = -outcome.surrogate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            length = torch.nn.utils.get_total_norm(gradients)
            limit = torch.where(self.norm > 0, self.settings.clip * self.norm, length)
            share = (limit / length.clamp(min=torch.finfo(self.dtype).tiny)).clamp(max=1.0)
            torch._foreach_mul_(gradients, share)
            self.norm.lerp_(length * share, max(0.01, 1 / (self.state.step + 1)))
            bound = outcome.bound
            columns = [bound, *(outcome.terms.get(name) for name in TERMS[1:])]
            self.sums += torch.stack([torch.zeros_like(loss) if c is None else c.sum() for c in columns]).double()
        self.optimizer.param_groups[0]["lr"] = self._learning_rate()
        self.optimizer.step()
        self.state.step += 1
        self.state.position += 1
        return loss.detach(), length, batch, bound

    def _stretch(self, order: Tensor) -> list[float] | None:
        """Steps up to the next boundary; their losses, or None where one was not finite or exploded."""
        steps = min(STRETCH, self.steps_per_epoch - self.state.position)
        record = []
        for _ in range(steps):
            loss, length, _, _ = self._step(order)
            record.append(torch.stack((loss, length)))
            if self.stop.is_set():
                raise Interrupted
        weights = torch.nn.utils.get_total_norm(self.parameters).detach().expand(1, 2)
        *losses, (last, _) = torch.cat((torch.stack(record), weights)).double().cpu().tolist()
        if not math.isfinite(last) or any(self._bad(loss, length) for loss, length in losses):
            return None
        return [loss for loss, _ in losses]

    def _bad(self, loss: float, length: float) -> str:
        """Why a step cannot stand, or "": not finite, or far above every loss of the stretches before."""
        if not math.isfinite(loss):
            return "the loss is not finite"
        if not math.isfinite(length):
            return "the gradient is not finite"
        high, low = self.state.highest_loss, self.state.lowest_loss
        if math.isfinite(high) and loss > high + 10 * (high - low + abs(high) + 1):
            return f"the loss rose to {loss:.3g}, {high:.3g} being the highest so far"
        return ""

    def _roll_back(self, order: Tensor) -> RolledBack:
        """Restore the snapshot, replay to name the step, the tensor and the rows, restore again, lower the rate."""
        self._restore()
        reason, tensor, rows = "", "", []
        for _ in range(min(STRETCH, self.steps_per_epoch - self.state.position)):
            loss, length, batch, bound = self._step(order)
            reason = self._bad(float(loss), float(length))
            if reason:
                tensor = self._culprit()
                if bound is not None:
                    rows = batch.ids()[self._worst(bound)].tolist()
                break
        else:
            reason, tensor = "a step made the weights infinite", self._culprit()
        failed = self.state.step
        if self.kept.failures and self.kept.best_epoch and failed == self.kept.step + 1:
            self._start_from_best()  # the snapshot itself is past saving
        self._restore()
        self.state.failures += 1
        self.state.rate_scale *= LOWER
        self.kept = dataclasses.replace(self.state)
        return RolledBack(self.state.step, failed, reason, tensor, rows, self._learning_rate())

    def _start_from_best(self) -> None:
        """Put the best weights into the snapshot, with a fresh optimiser."""
        for name, value in self.snapshot.items():
            if name in self.best:
                value.copy_(self.best[name])
            elif name.startswith("adam."):
                value.zero_()

    def _culprit(self) -> str:
        """The first parameter whose gradient is not finite, or else the one with the longest gradient."""
        lengths = {
            name: float(p.grad.norm()) if p.grad is not None else 0.0
            for name, p in zip(self.names, self.parameters, strict=True)
        }
        bad = [name for name, length in lengths.items() if not math.isfinite(length)]
        return f"the gradient of {bad[0] if bad else max(lengths, key=lambda name: lengths[name])}"

    @staticmethod
    def _worst(bound: Tensor) -> Tensor:
        """Positions of rows whose bound is not finite, or of the lowest one where all are."""
        broken = (~bound.isfinite()).nonzero().flatten()
        return broken if len(broken) else bound.argmin().unsqueeze(0)

    # -- epochs --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Mean terms on the validation rows, under the same noise at every epoch."""
        self.model.eval()
        key, totals = self.key.fold("validation"), torch.zeros(len(TERMS), dtype=torch.float64)
        size = max(1, 4096 // self.objective.samples)
        for first in range(0, self.held_out.rows, size):
            problem = self.model.given(self.held_out.take(slice(first, first + size)))
            outcome = self.objective(problem, problem.noise(key, self.objective.samples), self.state.step)
            values = [outcome.bound, *(outcome.terms.get(name) for name in TERMS[1:])]
            totals += torch.stack(
                [torch.tensor(0.0) if value is None else value.sum().cpu() for value in values]
            ).double()
        self.model.train()
        return dict(zip(TERMS, (totals / self.held_out.rows).tolist(), strict=True))

    def _epoch_done(self) -> EpochDone:
        state, settings = self.state, self.settings
        train = dict(zip(TERMS, (self.sums.cpu() / len(self.train)).tolist(), strict=True))
        validation = self._validate()
        rate = self._learning_rate()
        self.sums.zero_()
        state.epoch, state.position = state.epoch + 1, 0
        better = validation["bound"] > state.best
        if better:
            state.best, state.best_epoch, state.since_best, state.since_drop = validation["bound"], state.epoch, 0, 0
            for name, value in self.best.items():
                value.copy_(self.live[name])
        elif state.step > self.objective.settled_at:
            state.since_best, state.since_drop = state.since_best + 1, state.since_drop + 1
            if settings.schedule == "plateau" and state.since_drop >= settings.plateau:
                state.rate_scale, state.since_drop = state.rate_scale * settings.factor, 0
            if settings.patience and state.since_best >= settings.patience:
                state.stopped = f"no better validation bound for {settings.patience} epochs"
        return EpochDone(state.step, state.epoch, train, validation, rate, better)

    def run(self) -> Iterator[Event]:
        """Train to the end, yielding events; the model then holds its best weights.

        Raises:
            Interrupted: ``stop`` was set; the last boundary is saved.
            RunError: a stretch failed `ATTEMPTS` times, or the disk refused a checkpoint.
        """
        state, settings = self.state, self.settings
        yield Started(
            state.step,
            settings.epochs,
            state.epoch,
            self.steps_per_epoch,
            len(self.train),
            len(self.validation),
            sum(p.numel() for p in self.parameters),
        )
        self.model.train()
        try:
            while self.state.epoch < settings.epochs and not self.state.stopped:
                yield from self._epoch()
        except (Interrupted, GeneratorExit):
            self.save()
            raise
        if (saved := self.save()) is not None:
            yield saved
        self._take_best()
        reason = self.state.stopped or f"all {settings.epochs} epochs done"
        yield Finished(self.state.step, self.state.epoch, self.state.best_epoch, reason)

    def _epoch(self) -> Iterator[Event]:
        order = self.key.fold("order", self.state.epoch).permutation(len(self.train)).to(self.model.device)
        while self.state.position < self.steps_per_epoch:
            losses = self._stretch(order)
            if losses is None:
                event = self._roll_back(order)
                yield event
                if self.state.failures >= ATTEMPTS:
                    self._give_up(event)
                continue
            state = self.state
            state.failures = 0
            state.highest_loss = max(state.highest_loss, *losses)
            state.lowest_loss = min(state.lowest_loss, *losses)
            if state.position < self.steps_per_epoch:
                self._keep()
                yield Progress(state.step, state.epoch, -sum(losses) / len(losses))
                yield from self._save_in_time()
        done = self._epoch_done()
        self._keep()
        yield done
        yield from self._save_in_time()

    def _save_in_time(self) -> Iterator[Event]:
        if time.monotonic() - self.saved_at >= self.settings.save_every and (saved := self.save()) is not None:
            yield saved

    def _give_up(self, event: RolledBack) -> None:
        self.save()
        self._take_best()
        rows = f", rows {', '.join(map(str, event.rows[:5]))}" if event.rows else ""
        raise RunError(
            f"training stopped at step {event.failed_step}: {event.reason} ({event.tensor}{rows}), {ATTEMPTS} times "
            f"although the rate was lowered to {event.learning_rate:.2g}. The model holds its best weights so far. "
            "Look at the rows named, or try another likelihood"
        )

    def _take_best(self) -> None:
        if self.state.best_epoch:
            self.model.load_state_dict({name.removeprefix("model."): value for name, value in self.best.items()})
        self.model.eval()


@contextlib.contextmanager
def graceful() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, for ``stop``; a second Ctrl-C interrupts at once.

    Outside the main thread, where signals cannot be caught, the event is never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before: dict[int, Any] = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
