"""Fused Adam whose gradient is cut where it is far longer than usual."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.optim.adam import adam

from vaelid.errors import InputError
from vaelid.model import VAE

MEMORY = 0.01  # weight of a new length in the running mean, once there are 1 / MEMORY of them


@final
class Adam:
    """Adam (Kingma and Ba 2015) over a model's trainable parameters, as one fused kernel per step.

    A gradient g longer than ``clip`` times the running mean m of the lengths so far is cut to g · clip · m / |g|; the
    mean takes the length as cut, so that one outlier moves it little and lasting growth is followed.

    Args:
        model: the model to train.
        clip: how many times the running mean a gradient may be long.

    Raises:
        InputError: the model has no parameter to train.
    """

    def __init__(self, model: VAE, clip: float) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if not named:
            raise InputError("a model without parameters to train", "at least one that requires a gradient")
        self.clip, self.device = clip, model.device
        self.names = [name for name, _ in named]
        self.parameters = [p for _, p in named]
        self.first = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self.second = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self.counts = [torch.zeros((), dtype=torch.float32, device=p.device) for p in self.parameters]
        self.mean = torch.zeros((), dtype=torch.float32, device=self.device)

    def tensors(self) -> dict[str, Tensor]:
        """The live state by name; nothing else is remembered between steps."""
        named: dict[str, Tensor] = {"clip.mean": self.mean}
        for name, first, second, count in zip(self.names, self.first, self.second, self.counts, strict=True):
            named |= {f"adam.{name}.exp_avg": first, f"adam.{name}.exp_avg_sq": second, f"adam.{name}.step": count}
        return named

    def clear(self) -> None:
        """Forget all gradients."""
        for p in self.parameters:
            p.grad = None

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
        excess = torch.where(self.mean > 0, length / (self.clip * self.mean), 1.0).clamp_(min=1.0)
        self.mean.lerp_(length / excess, max(MEMORY, 1 / (number + 1)))
        adam(
            parameters,
            gradients,
            [self.first[index] for index in live],
            [self.second[index] for index in live],
            [],
            [self.counts[index] for index in live],
            fused=True,
            grad_scale=excess,  # the kernel divides by it
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )
        return length

    @torch.no_grad()
    def size(self) -> Tensor:
        """Length of all weights together, (): not finite where one of them is not."""
        return torch.nn.utils.get_total_norm(self.parameters).to(torch.float32)
