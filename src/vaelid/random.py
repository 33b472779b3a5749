"""Keys that fold, and two ways to draw from one.

A `Key` is a 64-bit number. ``Key(seed).fold("train", step)`` derives another, the same for the same words
on every machine. From a key one draws

* *in bulk* (`Key.normal`, `Key.uniform`): PyTorch's generator seeded by the key; fast, depends on the shape;
* *per row* (`Key.normal_rows`, `Key.uniform_rows`): a function of (key, row, sample, dimension) alone, so that a
  row's score does not depend on which rows or how many samples were computed beside it.

Nothing in vaelid draws random numbers in any other way, so no generator state is ever saved.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit number
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_MASK = (1 << 64) - 1
_WORD = (1 << 32) - 1
_BLOCK = 1 << 15  # pairs of dimensions per block of counter-based noise on a CPU


@dataclass(frozen=True)
class Key:
    """A source of randomness: a 64-bit value, made from a seed and folded with words and numbers."""

    value: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", int(self.value) & _MASK)

    def fold(self, *data: str | int) -> Key:
        """The key derived from this one by ``data``, e.g. ``key.fold("train", step)``."""
        words = (word if isinstance(word, str) else operator.index(word) for word in data)
        text = repr((self.value, *words)).encode()
        return Key(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little"))

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh PyTorch generator seeded by this key."""
        # a fold spreads the key over all bits of the seed: PyTorch's CPU generator reads the lowest 32 alone
        return torch.Generator(device).manual_seed(self.fold("generator").value)

    @contextlib.contextmanager
    def seeding(self, device: torch.device | str = "cpu") -> Iterator[None]:
        """Seed PyTorch's global generators, the CPU's and the device's, by this key inside the block, and leave them as
        they were.

        For what takes no generator: initial weights, and code of a user's that draws, such as dropout or a
        ``DataLoader``.
        """
        kind = torch.device(device).type
        if kind != "cpu":
            with torch.random.fork_rng([device] if kind == "cuda" else []):
                torch.manual_seed(self.value >> 1)
                yield
            return
        before = torch.default_generator.get_state()
        torch.default_generator.manual_seed(self.value >> 1)  # torch.manual_seed takes 100 µs, and all devices
        try:
            yield
        finally:
            torch.default_generator.set_state(before)

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
        largest = 1 - torch.finfo(dtype).eps / 2

        def uniform(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
            return first.clamp_(max=largest), second.clamp_(max=largest)

        return self._rows(row_id, samples, size, start, dtype, uniform)

    def normal_rows(
        self, row_id: Tensor, samples: int, size: int, *, start: int = 0, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Standard normal noise, shape (samples, batch, size), counter-based per row (Box and Muller 1958).

        ``row_id`` has shape (batch,), int64; its device is the result's. See `uniform_rows` for ``start``.
        """

        def normal(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
            radius, angle = first.log_().mul_(-2).sqrt_(), second.mul_(2 * math.pi)
            return torch.cos(angle).mul_(radius), angle.sin_().mul_(radius)

        return self._rows(row_id, samples, size, start, dtype, normal)

    def _rows(
        self,
        row_id: Tensor,
        samples: int,
        size: int,
        start: int,
        dtype: torch.dtype,
        transform: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    ) -> Tensor:
        """Fill (samples, batch, size) in blocks that fit the cache: ``transform`` takes two numbers in (0, 1] per pair
        of neighbouring dimensions and gives the pair.

        The bits are splitmix64's (Steele et al. 2014), from a state of its own for each row and at the position
        sample · 2³² + pair.
        """
        device, pairs = row_id.device, (size + 1) // 2
        state = _mix(row_id.to(torch.int64) * _GOLDEN + _signed(self.value))
        sample = (torch.arange(start, start + samples, device=device) << 32) * _GOLDEN
        pair = torch.arange(pairs, device=device) * _GOLDEN
        out = torch.empty(samples, len(state), size, dtype=dtype, device=device)
        block = max(1, (_BLOCK if device.type == "cpu" else 64 * _BLOCK) // max(1, pairs))
        rows = min(max(1, len(state)), block)
        for r in range(0, len(state), rows):
            for s in range(0, samples, block // rows):
                part = out[s : s + block // rows, r : r + rows]
                bits = _mix(sample[s : s + block // rows].view(-1, 1, 1) + state[r : r + rows].view(-1, 1) + pair)
                low = bits & _WORD
                even, odd = transform(_unit(_shift(bits, 32), dtype), _unit(low, dtype))
                part[..., 0::2] = even
                part[..., 1::2] = odd[..., : size // 2]
        return out


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift(x: Tensor, by: int) -> Tensor:
    """Logical right shift of int64."""
    return (x >> by).bitwise_and_((1 << (64 - by)) - 1)


def _mix(x: Tensor) -> Tensor:
    """splitmix64's mixing, in place."""
    x.bitwise_xor_(_shift(x, 30)).mul_(_MIX_1)
    x.bitwise_xor_(_shift(x, 27)).mul_(_MIX_2)
    return x.bitwise_xor_(_shift(x, 31))


def _unit(word: Tensor, dtype: torch.dtype) -> Tensor:
    """A 32-bit word as a number in (0, 1]: at most 6.8 standard deviations from a normal's centre."""
    return word.to(dtype).add_(0.5).mul_(2.0**-32)
