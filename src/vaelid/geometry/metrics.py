"""Pointwise and along paths: metric, speed, length, energy, volume."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vaelid.errors import InputError
from vaelid.geometry import curves
from vaelid.geometry.manifold import Manifold, as_manifold, pairs, prepare, tensor


@torch.no_grad()
def metric(f: Any, z: Any) -> Tensor:
    """G(z) = Jᵀ J, (n, d, d), J in orthonormal coordinates of the target; d directional derivatives per point.

    Raises:
        InputError: see `vaelid.geometry.manifold.prepare`.
    """
    manifold, at = prepare(f, z=z)
    found: Tensor = manifold.metric(at)
    return found


@torch.no_grad()
def speed(f: Any, z: Any, v: Any) -> Tensor:
    """√(vᵀ G(z) v), (n,), by one directional derivative per point: G is never formed.

    Raises:
        InputError: see `vaelid.geometry.manifold.prepare`.
    """
    manifold, at, along = prepare(f, z=z, v=v)
    squared: Tensor = manifold.squared_speed(*pairs(at, along, ("z", "v")))
    return squared.clamp_min(0).sqrt()


@torch.no_grad()
def log_volume(f: Any, z: Any) -> Tensor:
    """log √det G(z), (n,): −∞ where the map is flat in some direction; the log-density of the volume measure.

    √det G need not have a finite integral over ℝᵈ: restrict it to a region before it is taken for a density.

    Raises:
        InputError: see `vaelid.geometry.manifold.prepare`.
    """
    manifold, at = prepare(f, z=z)
    found: Tensor = manifold.metric(at).double()
    factor, info = torch.linalg.cholesky_ex(found)
    logs = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    if (lost := info != 0).any():  # to rounding, or not finite
        values = torch.linalg.eigvalsh(found[lost].nan_to_num()).clamp_min(0)
        finite = found[lost].flatten(1).isfinite().all(1)
        logs[lost] = torch.where(finite, values.log().sum(-1), torch.nan)
    half: Tensor = 0.5 * logs
    return half


@torch.no_grad()
def length(f: Any, path: Any) -> Tensor:
    """∫ √(γ̇ᵀ G γ̇) dt of the cubic splines through paths (n, N + 1, d), (n,), by four Gauss points per segment.

    Raises:
        InputError: see `vaelid.geometry.manifold.prepare`; paths of another shape.
    """
    return _along(f, path)[0]


@torch.no_grad()
def energy(f: Any, path: Any) -> Tensor:
    """½ ∫ γ̇ᵀ G γ̇ dt of the cubic splines through paths (n, N + 1, d), nodes at equal steps of t in [0, 1]: (n,).

    At least ½ length², with equality at constant speed.

    Raises:
        InputError: see `vaelid.geometry.manifold.prepare`; paths of another shape.
    """
    return _along(f, path)[1]


def checked_path(f: Any, path: Any) -> tuple[Manifold, Tensor]:
    """``f`` as a manifold, and paths (n, N + 1, d); one path alone counts as one of many.

    Raises:
        InputError: another shape, or fewer than two nodes.
    """
    nodes = tensor(path, "path")
    nodes = nodes.unsqueeze(0) if nodes.ndim == 2 else nodes
    if nodes.ndim != 3 or nodes.shape[1] < 2:
        raise InputError(f"a path of shape {tuple(nodes.shape)}", "(n, N + 1, d), two nodes or more")
    manifold = as_manifold(f)
    flat = manifold.points(nodes.flatten(0, 1), "path")
    looked = manifold.looked_at(flat)
    return looked, flat.to(looked.like).view(nodes.shape)


def _along(f: Any, path: Any) -> tuple[Tensor, Tensor]:
    return curves.quadrature(*checked_path(f, path))
