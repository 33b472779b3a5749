"""One optimiser step: eager, or gradient, clipping and Adam as one compiled graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

from vaelid.errors import first_line
from vaelid.model import VAE
from vaelid.networks.products import available
from vaelid.objectives import Objective, Outcome
from vaelid.training.adam import Adam
from vaelid.training.schedule import planned_steps
from vaelid.training.settings import Settings
from vaelid.types import Batch

TERMS = ("bound", "reconstruction", "rate")
STEPS, STEPS_LARGE, PARAMETERS_LARGE = 20_000, 5_000, 1_000_000  # see `worth_compiling`


def worth_compiling(model: VAE, objective: Objective, steps: int) -> bool:
    """Whether a run of ``steps`` optimiser steps is compiled: the fixed rule behind ``training.compile``.

    Compiling takes some ten seconds and saves about 0.8 ms per step of a small dense model and 4 ms of one with a
    million parameters. So it is done from `STEPS` steps on, or `STEPS_LARGE` for models from `PARAMETERS_LARGE` on,
    where the objective's gradient can be taken through its surrogate alone, and never for convolutions, whose
    compiled form is several times slower on a CPU.
    """
    large = sum(p.numel() for p in model.parameters()) >= PARAMETERS_LARGE
    dense = not any(isinstance(module, nn.modules.conv._ConvNd) for module in model.modules())
    return dense and objective.compilable and steps >= (STEPS_LARGE if large else STEPS)


def settled(settings: Settings, model: VAE, objective: Objective, steps_per_epoch: int | None) -> Settings:
    """The settings with all that is left to a rule written out: a cosine's horizon, and whether steps are compiled.

    Raises:
        InputError: see `vaelid.training.schedule.planned_steps`.
    """
    settings = settings.resolved()
    planned = planned_steps(settings, steps_per_epoch, objective.settled_at)
    if settings.compile is not None:
        return settings
    return settings.model_copy(update={"compile": worth_compiling(model, objective, planned)})


@final
class Step:
    """Takes steps of ``optimizer`` along the gradient of an objective; `compile` makes full batches faster."""

    def __init__(self, model: VAE, objective: Objective, optimizer: Adam, settings: Settings) -> None:
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.half = settings.precision == "bfloat16"
        self.graph: Callable[..., Tensor] | None = None
        self.rows = 0  # of a batch that the graph was made for

    def __call__(self, batch: Batch, u: Tensor, rate: float, number: int) -> Tensor:
        """One step: (loss, gradient's length, `TERMS` summed over rows)."""
        if self.graph is None or batch.rows != self.rows:
            return self.eager(batch, u, rate, number)[0]
        return self.graph(self.optimizer.flat[0], batch, u, self._numbers(rate, number), self._clock(number))

    def eager(self, batch: Batch, u: Tensor, rate: float, number: int) -> tuple[Tensor, Outcome]:
        """One step without a graph, and its outcome; the gradients stay with the parameters."""
        outcome = self._outcome(batch, u, number)
        loss = -outcome.surrogate
        self.optimizer.clear()
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            length = self.optimizer.step(rate, number)
            return torch.stack((loss, length.to(loss.dtype), *sums(outcome, batch))), outcome

    def compile(self, batch: Batch, u: Tensor) -> str:
        """Make the graph for batches like this one and try it; says why where it cannot be made, else nothing.

        The trial is undone.
        """
        if not self.optimizer.flat:
            return "its parameters differ in dtype or are not contiguous"
        kept = {name: value.clone() for name, value in self._state().items()}
        self.rows = batch.rows
        try:
            self.graph = torch.compile(self._fresh(), fullgraph=True, dynamic=False, options=_options(u.device))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the compiler's own
                self(batch, u, 0.0, 0)
        except Exception as error:  # whatever keeps the compiler from its work, the eager step does the same
            self.graph = None
            return first_line(error)[:200]
        finally:
            with torch.no_grad():
                for name, value in self._state().items():
                    value.copy_(kept[name])
        return ""

    def _fresh(self) -> Callable[..., Tensor]:
        """The step to compile, with a code object of its own: the compiler limits how many versions one may have."""

        def step(weights: Tensor, batch: Batch, u: Tensor, numbers: Tensor, clock: Any) -> Tensor:
            def loss(values: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
                outcome = functional_call(asked, dict(zip(names, values, strict=True)), (batch, u, clock))
                return -outcome.surrogate, sums(outcome, batch)

            gradients, (value, terms) = grad_and_value(loss, has_aux=True)(self.optimizer.split(weights))
            length = self.optimizer.descend(gradients, numbers)
            return torch.stack((value, length.to(value.dtype), *terms))

        asked, names = _Asked(self), [f"model.{name}" for name in self.optimizer.names]
        step.__code__ = step.__code__.replace()
        return step

    def _outcome(self, batch: Batch, u: Tensor, step: Any) -> Outcome:
        with torch.autocast(u.device.type, torch.bfloat16, enabled=self.half):
            return self.objective(self.model.given(batch), u, step)

    def _state(self) -> dict[str, Tensor]:
        return dict(self.model.state_dict()) | self.optimizer.tensors()

    def _numbers(self, rate: float, number: int) -> Tensor:
        return torch.tensor((rate, *self.optimizer.shares(number))).to(self.optimizer.device, non_blocking=True)

    def _clock(self, number: int) -> int | Tensor:
        """The step as a graph sees it: 0 for an objective that never looks."""
        return torch.tensor(float(number), device=self.optimizer.device) if self.objective.settled_at else 0


class _Asked(nn.Module):
    """The objective of a model as a module, so that its weights can be swapped for the values differentiated in."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.model, self.outcome = step.model, step._outcome

    def forward(self, batch: Batch, u: Tensor, clock: Any) -> Outcome:
        return self.outcome(batch, u, clock)


def sums(outcome: Outcome, batch: Batch) -> list[Tensor]:
    """`TERMS` summed over rows, () each, weighted where the rows are; NaN where the objective has no such term."""
    values = [outcome.bound, *(outcome.terms.get(name) for name in TERMS[1:])]
    weight, none = batch.weight, torch.full_like(outcome.surrogate, float("nan"))
    return [none if value is None else (value if weight is None else weight * value).sum() for value in values]


def _options(device: torch.device) -> dict[str, Any]:
    # what guards and asserts would look at is the same in every call: one model in training mode, full batches
    options: dict[str, Any] = {"guard_filter_fn": lambda guards: [False for _ in guards], "size_asserts": False}
    if device.type == "cpu" and available():
        from vaelid.training.products import Products  # loads the compiler

        options["post_grad_custom_post_pass"] = Products()
    return options
