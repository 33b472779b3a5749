"""Adam whose gradient is cut where it is far longer than usual, as a fused kernel and as a formula to compile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor
from torch.optim.adam import adam

from vaelid.errors import InputError
from vaelid.model import VAE

MEMORY = 0.01  # weight of a new length in the running mean, once there are 1 / MEMORY of them
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


@final
class Adam:
    """Adam (Kingma and Ba 2015) over a model's trainable parameters.

    A gradient g longer than ``clip`` times the running mean m of the lengths so far is cut to g · clip · m / |g|; the
    mean takes the length as cut, so that one outlier moves it little and lasting growth is followed. With
    ``average`` = α > 0 a running mean of the weights is kept too, w̄ ← w̄ + (1 − α_t)(w − w̄), where
    α_t = min(α, (1 + t) / (10 + t)) lets the first steps be forgotten (Polyak and Juditsky 1992).

    Args:
        model: the model to train.
        clip: how many times the running mean a gradient may be long.
        average: α, 0 for no averaging.
        flat: keep the weights side by side in one tensor, of which the parameters become views, so that a compiled
            step moves them by one kernel; `separate` undoes that.

    Raises:
        InputError: the model has no parameter to train.
    """

    def __init__(self, model: VAE, clip: float, average: float = 0.0, flat: bool = False) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if not named:
            raise InputError("a model without parameters to train", "at least one that requires a gradient")
        self.clip, self.decay, self.device = clip, average, model.device
        self.names = [name for name, _ in named]
        self.parameters = [p for _, p in named]
        self.counts = torch.zeros(len(named), dtype=torch.float32, device=self.device)
        self.mean = torch.zeros((), dtype=torch.float32, device=self.device)
        self.flat: tuple[Tensor, ...] = ()
        values = [p.detach() for p in self.parameters]
        if flat and len({p.dtype for p in values}) == 1 and all(p.is_contiguous() for p in values):
            weights = torch.cat([p.flatten() for p in values])
            self.flat = weights, torch.zeros_like(weights), torch.zeros_like(weights), weights.clone()
            for p, value in zip(self.parameters, self.split(weights), strict=True):
                p.data = value
            self.first, self.second, self.average = (self.split(value) for value in self.flat[1:])
        else:
            self.first, self.second = [torch.zeros_like(p) for p in values], [torch.zeros_like(p) for p in values]
            self.average = [p.clone() for p in values]
        self.average = self.average if average else []

    def split(self, flat: Tensor) -> list[Tensor]:
        """Views of a flat tensor in the shapes of the parameters."""
        pieces = flat.split([p.numel() for p in self.parameters])  # type: ignore[no-untyped-call]
        return [piece.view(p.shape) for piece, p in zip(pieces, self.parameters, strict=True)]

    def separate(self) -> None:
        """Give every parameter memory of its own again; no step may follow."""
        if self.flat:
            for p in self.parameters:
                p.data = p.data.clone()

    def tensors(self) -> dict[str, Tensor]:
        """The live state by name; nothing else is remembered between steps."""
        named: dict[str, Tensor] = {"clip.mean": self.mean, "adam.steps": self.counts}
        for name, first, second in zip(self.names, self.first, self.second, strict=True):
            named |= {f"adam.{name}.exp_avg": first, f"adam.{name}.exp_avg_sq": second}
        return named | {f"average.{name}": value for name, value in zip(self.names, self.average, strict=False)}

    def clear(self) -> None:
        """Forget all gradients."""
        for p in self.parameters:
            p.grad = None

    def shares(self, number: int) -> tuple[float, float]:
        """What the running means of lengths and of weights take of a new value, after ``number`` steps."""
        return max(MEMORY, 1 / (number + 1)), 1 - min(self.decay, (1 + number) / (10 + number))

    @torch.no_grad()
    def step(self, rate: float, number: int) -> Tensor:
        """Move the parameters along their gradients; the gradient's length before cutting, (), on the device.

        Args:
            rate: the learning rate.
            number: steps done so far.
        """
        live = [index for index, p in enumerate(self.parameters) if p.grad is not None]
        parameters: list[Tensor] = [self.parameters[index] for index in live]
        gradients: list[Tensor] = [p.grad for p in parameters]  # type: ignore[misc]
        length = torch.nn.utils.get_total_norm(gradients).to(torch.float32)
        share, forget = self.shares(number)
        excess = self._cut(length, share)
        counts = self.counts.unbind()
        adam(
            parameters,
            gradients,
            [self.first[index] for index in live],
            [self.second[index] for index in live],
            [],
            [counts[index] for index in live],
            fused=True,
            grad_scale=excess,  # the kernel divides by it
            amsgrad=False,
            beta1=BETA_1,
            beta2=BETA_2,
            lr=rate,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )
        if self.average:
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], forget)
        return length

    def descend(self, gradients: Sequence[Tensor], numbers: Tensor) -> Tensor:
        """What `step` does, over flat tensors and in plain operations for a compiler.

        Args:
            gradients: those of all parameters.
            numbers: the learning rate and the two `shares`, (3,), on the device.
        """
        rate, share, forget = numbers.unbind()
        weights, first, second, average = self.flat
        g = torch.cat([gradient.flatten() for gradient in gradients])
        length = g.float().square().sum().sqrt()
        g = g / self._cut(length, share).to(g.dtype)
        self.counts.add_(1)
        count = self.counts[0]
        unbias_1, unbias_2 = -torch.expm1(count * math.log(BETA_1)), -torch.expm1(count * math.log(BETA_2))
        first.lerp_(g, 1 - BETA_1)
        second.mul_(BETA_2).add_((1 - BETA_2) * g * g)
        weights.sub_((rate / unbias_1) * first / ((second / unbias_2).sqrt() + EPSILON))
        if self.average:
            average.add_(forget * (weights - average))
        return length

    def _cut(self, length: Tensor, share: float | Tensor) -> Tensor:
        """What to divide the gradient by; the running mean takes the length as cut."""
        excess = torch.where(self.mean > 0, length / (self.clip * self.mean), 1.0).clamp(min=1.0)
        self.mean.lerp_(length / excess, share)
        return excess

    @torch.no_grad()
    def size(self) -> Tensor:
        """Length of all weights together, (): not finite where one of them is not."""
        return torch.nn.utils.get_total_norm(self.parameters).to(torch.float32)
