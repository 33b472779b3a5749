"""Keys that fold, and two ways to draw from one.

A `Key` is a 64-bit number. ``Key(seed).fold("train", step)`` derives another, the same for the same words
on every machine. From a key one draws

* *in bulk* (`Key.normal`, `Key.uniform`): PyTorch's generator seeded by the key; fast, depends on the shape;
* *per row* (`Key.normal_rows`, `Key.uniform_rows`): a function of (key, row, sample, dimension) alone, so that a
  row's score does not depend on which rows or how many samples were computed beside it.

Nothing in vaelid draws random numbers in any other way, so no generator state is ever saved.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit number
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Key:
    """A source of randomness: a 64-bit value, made from a seed and folded with words and numbers."""

    value: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", int(self.value) & _MASK)

    def fold(self, *data: str | int) -> Key:
        """The key derived from this one by ``data``, e.g. ``key.fold("train", step)``."""
        text = repr((self.value, *data)).encode()
        return Key(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little"))

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh PyTorch generator seeded by this key."""
        return torch.Generator(device).manual_seed(self.value >> 1)

    def normal(
        self, shape: tuple[int, ...], *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Standard normal noise of ``shape``, drawn in bulk."""
        return torch.randn(shape, generator=self.generator(device), device=device, dtype=dtype)

    def uniform(
        self, shape: tuple[int, ...], *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Uniform noise on [0, 1) of ``shape``, drawn in bulk."""
        return torch.rand(shape, generator=self.generator(device), device=device, dtype=dtype)

    def permutation(self, n: int) -> Tensor:
        """A random order of ``range(n)``, shape (n,), on the CPU."""
        return torch.randperm(n, generator=self.generator())

    def uniform_rows(
        self, row_id: Tensor, samples: int, size: int, *, start: int = 0, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Uniform noise strictly inside (0, 1), shape (samples, batch, size), counter-based per row.

        ``start`` is the number of the first sample: drawing samples 0–9 and then 10–19 gives what 0–19 gives.
        """
        first, second = self._bits(row_id, samples, size, start)
        pairs = torch.stack((_unit(first, dtype), _unit(second, dtype)), dim=-1)
        uniform = pairs.flatten(-2)[..., :size]
        return uniform.clamp_(max=1 - torch.finfo(dtype).eps / 2)

    def normal_rows(
        self, row_id: Tensor, samples: int, size: int, *, start: int = 0, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Standard normal noise, shape (samples, batch, size), counter-based per row (Box–Muller).

        ``row_id`` has shape (batch,), int64; its device is the result's. See `uniform_rows` for ``start``.
        """
        first, second = self._bits(row_id, samples, size, start)
        radius = _unit(first, dtype).log_().mul_(-2).sqrt_()
        angle = _unit(second, dtype).mul_(2 * math.pi)
        pairs = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
        return pairs.flatten(-2)[..., :size]

    def _bits(self, row_id: Tensor, samples: int, size: int, start: int) -> tuple[Tensor, Tensor]:
        """Two 32-bit words per pair of dimensions, (samples, batch, ceil(size / 2)): splitmix64 (Steele et al. 2014)
        from a state of its own for each row."""
        pairs = (size + 1) // 2
        state = _mix(row_id.to(torch.int64) * _GOLDEN + _signed(self.value))
        count = torch.arange(start * pairs + 1, (start + samples) * pairs + 1, device=row_id.device)
        counter = (count * _GOLDEN).view(samples, 1, pairs)
        bits = _mix(state.view(1, -1, 1) + counter)
        return _shift(bits, 32), bits & 0xFFFFFFFF


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift(x: Tensor, by: int) -> Tensor:
    """Logical right shift of int64."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def _unit(word: Tensor, dtype: torch.dtype) -> Tensor:
    """A 32-bit word as a number in (0, 1]: at most 6.7 standard deviations from a normal's centre."""
    return word.to(dtype).add_(0.5).mul_(2.0**-32)
