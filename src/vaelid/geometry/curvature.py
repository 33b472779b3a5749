"""Curvature by Gauss's equation, and the check that a function is smooth enough to have one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelid.errors import InputError
from vaelid.geometry.forward import derivative
from vaelid.geometry.manifold import Embedding, Manifold, pairs, prepare

_LOOK = 8  # points that are looked at for kinks
_KINK = 0.03  # of the change that the second derivative may leave unexplained
_HALVINGS = 12


def sectional_curvature(f: Any, z: Any, u: Any, v: Any) -> Tensor:
    """K of the planes spanned by u and v at z, (n,); NaN where they span none.

    K = (⟨II(u, u), II(v, v)⟩ − |II(u, v)|² + R̄(u, v, v, u)) / (|u|²|v|² − ⟨u, v⟩²), with the second fundamental form
    II(u, v), the part of D²φ[u, v] + Γ(∂ᵤφ, ∂ᵥφ) that is normal to the image, and R̄ the target's own curvature, 0 in
    a flat one (do Carmo 1992, ch. 6, theorem 2.5).

    Args:
        f: an embedding or any smooth function (n, d) → (n, D).
        z: points (n, d).
        u: tangents (n, d), or one.
        v: tangents (n, d), or one.

    Raises:
        InputError: see `vaelid.geometry.manifold.prepare`; a metric without an embedding, a potential, one latent, or a
            piecewise linear function, whose Jacobian jumps where its second derivative does not see it.
    """
    f, z, u, v = prepare(f, z=z, u=u, v=v)
    if not isinstance(f, Embedding):
        raise InputError("curvature of a metric alone", "an embedding, whose second derivatives Gauss's equation takes")
    if z.shape[1] < 2:
        raise InputError("the curvature of one latent dimension", "two or more: a curve has none of its own")
    z, u = pairs(z, u, ("z", "u"))
    z, v = pairs(z, v, ("z", "v"))
    u = u.expand_as(z)
    refuse_kinks(f, z, u + v)
    together = f.rows(2 * z.shape[1] + 6)
    parts = zip(*(torch.split(x, together) for x in (z, u, v)), strict=True)
    return torch.cat([_sectional(f, *rows) for rows in parts])


def _sectional(f: Embedding, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
    target = f.target
    value, jacobian = f.jacobian(z)
    frame = target.whiten(value.unsqueeze(1), jacobian)  # (n, d, R)
    basis = torch.linalg.qr(frame.mT).Q  # (n, R, d)
    du, dv = (torch.einsum("ni,nid->nd", x, jacobian) for x in (u, v))

    def second(a: Tensor, da: Tensor, b: Tensor, db: Tensor) -> Tensor:
        bent = second_derivative(f, z, a, b)
        gamma = target.connection(value, da, db)
        white = target.whiten(value, bent if gamma is None else bent + gamma)
        normal: Tensor = white - (basis @ (basis.mT @ white.unsqueeze(-1))).squeeze(-1)
        return normal

    uu, vv, uv = second(u, du, u, du), second(v, dv, v, dv), second(u, du, v, dv)
    wu, wv = target.whiten(value, du), target.whiten(value, dv)
    area = wu.square().sum(-1) * wv.square().sum(-1) - (wu * wv).sum(-1).square()
    top = (uu * vv).sum(-1) - uv.square().sum(-1) + target.ambient(value, du, dv)
    curvature: Tensor = torch.where(area > 0, top / area, torch.nan)
    return curvature


def second_derivative(f: Embedding, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """D²φ[u, v], (n, D), by forward mode twice."""

    def first(z: Tensor) -> Tensor:
        return derivative(f, z, v)[1]

    return derivative(first, z, u)[1].detach()


def refuse_kinks(f: Manifold, z: Tensor, v: Tensor) -> None:
    """Refuse a function whose derivative changes by jumps, of which its second derivative knows nothing.

    Along segments from z in directions v the change of the derivative is compared with the integral of D²φ[v, v], by
    Gauss's rule on 8 and on 16 panels; segments are halved until the two rules agree. A linear function passes.

    Raises:
        InputError: all segments together, the change and the integral differ by more than 3 % of the change, and by
            more than the rules differ.
    """
    if not isinstance(f, Embedding):
        return
    rows = torch.linspace(0, len(z) - 1, min(_LOOK, len(z))).long().to(z.device)
    z, v = z[rows], v[rows]
    size = v.norm(dim=1, keepdim=True)
    v = torch.where(size > 0, v / size.clamp_min(torch.finfo(v.dtype).tiny), torch.ones_like(v))
    start, reach = _slope(f, z, v), 1.0
    for _ in range(_HALVINGS):
        change = _slope(f, z + reach * v, v) - start
        coarse, fine = (_integral(f, z, v, reach, panels) for panels in (8, 16))
        whole, unsure = change.norm(), (fine - coarse).norm()
        if unsure <= 0.02 * whole or not whole.isfinite():
            break
        reach /= 2
    left, rounding = (change - fine).norm(), 100 * torch.finfo(z.dtype).eps * start.norm()
    if left > _KINK * whole and left > 4 * unsure and left > rounding:
        raise InputError(
            f"a function whose Jacobian changes otherwise than its second derivative says ({f.name})", "a smooth one",
            "piecewise linear activations (ReLU) have no curvature and no geodesic equation, and PyTorch's second "
            "derivatives of normalising layers are wrong: use GELU, softplus or tanh and no such layer; geodesic(), "
            "distances and volumes work as they are",
        )  # fmt: skip


def _integral(f: Embedding, z: Tensor, v: Tensor, reach: float, panels: int) -> Tensor:
    """∫ D²φ[v, v] along the segments from z to z + reach · v, (n, D), by two Gauss points per panel."""
    place, _ = np.polynomial.legendre.leggauss(2)
    times = reach * ((np.arange(panels)[:, None] + (place + 1) / 2) / panels).ravel()
    at = (z + z.new_tensor(times)[:, None, None] * v).flatten(0, 1)
    bent = second_derivative(f, at, v.repeat(len(times), 1), v.repeat(len(times), 1))
    return reach * bent.view(len(times), len(z), -1).mean(0)


def _slope(f: Embedding, z: Tensor, v: Tensor) -> Tensor:
    """∂φ along v, (n, D)."""
    return derivative(f, z, v)[1].detach()
