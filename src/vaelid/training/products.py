"""Large matrix products of a compiled step through oneDNN.

PyTorch's dense products on a CPU go to a BLAS that uses the widest vectors on one vendor's processors alone; oneDNN,
which PyTorch ships for convolutions, uses them wherever they are there. Which of the two is taken depends on the
processor's instructions and on the shapes, nothing measured, so that a run repeats.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch._inductor.custom_graph_pass import CustomGraphPass

LARGE = 10_000_000  # multiplications from which a product is worth the call

_aten, _mkldnn = torch.ops.aten, torch.ops.mkldnn
_library = torch.library.Library("vaelid", "DEF")  # type: ignore[no-untyped-call]
_library.define("mm(Tensor a, Tensor b) -> Tensor")  # type: ignore[no-untyped-call]
_library.define("addmm(Tensor c, Tensor a, Tensor b) -> Tensor")  # type: ignore[no-untyped-call]


def mm(a: Tensor, b: Tensor) -> Tensor:
    """a b for a (n, k) and b (k, m), of any strides."""
    out: Tensor = _mkldnn._linear_pointwise(a, b.t(), None, "none", [], "")
    return out


def addmm(c: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a b + c for a (n, k), b (k, m) and c (m,)."""
    out: Tensor = _mkldnn._linear_pointwise(a, b.t(), c, "none", [], "")
    return out


def _shape(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


_library.impl("mm", mm, "CPU")  # type: ignore[no-untyped-call]
_library.impl("addmm", addmm, "CPU")  # type: ignore[no-untyped-call]
_library.impl("mm", _shape, "Meta")  # type: ignore[no-untyped-call]
_library.impl("addmm", lambda c, a, b: _shape(a, b), "Meta")  # type: ignore[no-untyped-call]

_OURS = {_aten.mm.default: torch.ops.vaelid.mm.default, _aten.addmm.default: torch.ops.vaelid.addmm.default}


def available() -> bool:
    """Whether this processor has vectors of 512 bits and this PyTorch has oneDNN."""
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return wide and torch.backends.mkldnn.is_available() and hasattr(_mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]


@final
class Products(CustomGraphPass):
    """Replace large float32 products of a graph."""

    def __call__(self, graph: torch.fx.Graph) -> None:
        """Rewrite the graph in place."""
        for node in graph.nodes:
            if node.op == "call_function" and node.target in _OURS and not node.kwargs and _is_large(node):
                node.target = _OURS[node.target]

    def uuid(self) -> bytes:
        """Names this pass in the compiler's cache."""
        return b"vaelid.products.1"


def _is_large(node: torch.fx.Node) -> bool:
    *rest, a, b = (argument.meta["val"] for argument in node.args)  # type: ignore[union-attr]
    size: int = a.shape[0] * a.shape[1] * b.shape[1]
    plain = a.device.type == "cpu" and a.dtype == torch.float32 and all(value.ndim == 1 for value in rest)
    return plain and size >= LARGE
