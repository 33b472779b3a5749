"""Rows on the device: data that fits lives there as one tensor and is indexed there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from vaelid.random import Key
from vaelid.types import Batch


@final
@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one part of a data set (train, validation or test), in their own compact dtype.

    Attributes:
        batch: every row, with its number in the source.
        grey: where grey levels are binarised: the value of white; then a cell is 1 with probability x / grey.
    """

    batch: Batch
    grey: float | None = None

    def __len__(self) -> int:
        return self.batch.rows

    def take(self, index: Tensor | slice, key: Key, dtype: torch.dtype) -> Batch:
        """Rows at ``index`` as a batch of ``dtype``, binarised afresh with noise drawn in bulk from ``key``."""
        rows = self.batch.take(index)
        x = rows.x.to(dtype)
        if self.grey is not None:
            uniform = key.uniform(tuple(x.shape), device=x.device, dtype=dtype)
            x = (uniform * self.grey < x).to(dtype)
        return Batch(x, rows.mask, rows.context, rows.row_id, rows.weight)

    def fixed(self, key: Key, dtype: torch.dtype, index: Tensor | slice = slice(None)) -> Batch:
        """Rows at ``index``, binarised once and for all: a cell's noise depends on (key, row, cell) alone."""
        rows = self.batch.take(index)
        x = rows.x.to(dtype)
        if self.grey is not None:
            cells = x[0].numel()
            pieces = [key.uniform_rows(ids, 1, cells, dtype=dtype)[0] for ids in torch.split(rows.ids(), 4096)]
            x = (torch.cat(pieces).view_as(x) * self.grey < x).to(dtype)
        return Batch(x, rows.mask, rows.context, rows.row_id, rows.weight)
