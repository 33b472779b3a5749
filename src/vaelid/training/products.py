"""Large products of a compiled step through oneDNN, see `vaelid.networks.products`."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch._inductor.custom_graph_pass import CustomGraphPass

from vaelid.networks.products import LARGE, mm

_aten = torch.ops.aten
_library = torch.library.Library("vaelid", "DEF")  # type: ignore[no-untyped-call]
_library.define("mm(Tensor a, Tensor b) -> Tensor")  # type: ignore[no-untyped-call]
_library.define("addmm(Tensor c, Tensor a, Tensor b) -> Tensor")  # type: ignore[no-untyped-call]


def _shape(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


_library.impl("mm", mm, "CPU")  # type: ignore[no-untyped-call]
_library.impl("addmm", lambda c, a, b: mm(a, b, c), "CPU")  # type: ignore[no-untyped-call]
_library.impl("mm", _shape, "Meta")  # type: ignore[no-untyped-call]
_library.impl("addmm", lambda c, a, b: _shape(a, b), "Meta")  # type: ignore[no-untyped-call]

_OURS = {_aten.mm.default: torch.ops.vaelid.mm.default, _aten.addmm.default: torch.ops.vaelid.addmm.default}


@final
class Products(CustomGraphPass):
    """Replace the large float32 products of a graph on a CPU."""

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
