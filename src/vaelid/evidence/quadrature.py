"""log p(x) of a model with one or two latents by a rule on a grid, as good as exact, and what follows from it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from vaelid import checks
from vaelid.errors import InputError
from vaelid.model import VAE, Problem, evaluating
from vaelid.types import Transport

LATENTS = 2  # at most
DEPTH = 25.0  # nats below the largest log p(x, z) of a row at which its box ends: about 7 standard deviations
REACH = 6.0  # radius in noise of what is looked at of prior and posterior
RINGS = (0.0, 1.0, 2.0, 3.0, 4.5, REACH)  # radii in noise at which q is looked at
DIRECTIONS = 16
COARSE = {1: 512, 2: 64}  # nodes along an axis while the box is sought
LEVELS = 12  # times that the box is drawn anew, at most
SHRUNK = 0.7  # of an axis: a box that does not become smaller than this is the last one
PASS = 4096  # decoder rows per pass

LogDensity = Callable[[Tensor], Tensor]  # z (row, node, latent) → log q(z), (row, node), nats


@final
@dataclass(frozen=True, eq=False)
class Quadrature:
    """log p(x, z) on a grid per row of data, and the integrals taken over it; float64.

    The grid is that of the midpoints of ``side`` cells along each axis of a box, all of one weight. Where the density
    has fallen to nothing at the edge of the box, the error of that rule falls faster than any power of the step.

    Attributes:
        frame: low and high ends of the box, (row, 2, latent).
        nodes: z, (row, node, latent), node = side ** latent; the last latent runs fastest.
        log_weight: logarithm of the nodes' weights, the volume of a cell, (row, node).
        log_joint: log p(x, z), (row, node), nats; −∞ where it is not a number.
        log_evidence: log p(x), (row,), nats: that of the box.
        error: how far ``log_evidence`` may be off, (row,), nats. It is the largest change when only every second node
            along each axis is taken, at either offset, and what may lie outside the box if log p(x, z) goes on falling
            there at least as steeply as at the edge, and the rounding of the model's dtype.
        side: nodes along an axis.
        like: an empty tensor of the model's dtype on its device.
    """

    frame: Tensor
    nodes: Tensor
    log_weight: Tensor
    log_joint: Tensor
    log_evidence: Tensor
    error: Tensor
    side: int
    like: Tensor

    @property
    def log_posterior(self) -> Tensor:
        """log p(z|x) = log p(x, z) − log p(x), (row, node), nats."""
        return self.log_joint - self.log_evidence.unsqueeze(1)

    def kl(self, log_q: LogDensity | Transport) -> tuple[Tensor, Tensor]:
        """KL(q ‖ p(z|x)) = ∫ q (log q − log p(z|x)) dz and its error, (row,) each, nats.

        The error counts the mass of q that the box lacks at the largest |log q − log p(z|x)| on its edge, besides
        what every second node changes and the error of log p(x).

        Args:
            log_q: log q(z), a function of z (row, node, latent) with values (row, node), or a distribution value with
                parameters (row, latent).

        Raises:
            InputError: its values have another shape.
            InputTypeError: a distribution value without a density at given z.
        """
        density = self._density(log_q)
        value, error, mass = self._mean(density, density - self.log_posterior)
        return value, error + mass * self.error

    def elbo(self, log_q: LogDensity | Transport) -> tuple[Tensor, Tensor]:
        """∫ q (log p(x, z) − log q) dz and its error, (row,) each, nats; see `kl`."""
        density = self._density(log_q)
        value, error, _ = self._mean(density, self.log_joint - density)
        return value, error

    @torch.no_grad()
    def _density(self, log_q: LogDensity | Transport) -> Tensor:
        """log q at the nodes, (row, node), float64."""
        if isinstance(log_q, Transport):
            z = self.nodes.transpose(0, 1).to(self.like)
            values = torch.cat([log_q.log_prob(some) for some in torch.split(z, PASS)]).transpose(0, 1)
        else:
            values = log_q(self.nodes)
        if values.shape != self.log_joint.shape:
            raise InputError(
                f"log q with values of shape {tuple(values.shape)}", f"{tuple(self.log_joint.shape)}, one per node"
            )
        return values.double().cpu().nan_to_num(nan=-math.inf)

    def _mean(self, density: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """∫ q v dz, its error and ∫ q dz, (row,) each."""
        weight = (density + self.log_weight).exp()
        terms = torch.where(weight > 0, weight * values, 0.0)
        total, mass = terms.sum(1), weight.sum(1)
        halves = torch.stack([terms[:, part].sum(1) for part in _halves(self.side, self.nodes.shape[2])])
        change = (halves * 2 ** self.nodes.shape[2] - total).abs().amax(0)
        edge = values[:, _edge(self.side, self.nodes.shape[2])]
        steep = torch.where(edge.isfinite(), edge, 0.0).abs().amax(1)
        return total, change + (1 - mass).abs() * steep, mass


@torch.no_grad()
def quadrature(model: VAE, x: Any, side: int = 200, frame: Any = None) -> Quadrature:
    """log p(x) = log ∫ p(x|z) p(z) dz by the midpoint rule on a grid, for a model with one or two latents.

    Where no frame is given, each row has a box of its own. It starts as the one that holds the prior and q(z|x) out to
    6 standard deviations of their noise, and closes in on the nodes and draws from q within 25 nats of the largest
    log p(x, z); q's own box is then added. A mode that is narrow against a sixty-fourth of the prior and that q does
    not know of would be missed.

    Args:
        model: any model with a density and one or two latents.
        x: rows, an array or a `Batch` (whose mask and covariates then count).
        side: nodes along an axis.
        frame: low and high ends of the box, (2, latent) for all rows or (row, 2, latent); None finds one per row.

    Raises:
        InputError: more than two latents, ``side`` below 8, rows that do not suit the model, or a frame of another
            shape or without extent.
    """
    latent = model.prior.latent
    if latent > LATENTS:
        raise InputError(
            f"a grid over {latent} latents", f"a model with one or {LATENTS}", "take vaelid.evidence.bracket instead"
        )
    side = checks.positive_int(side, "side", minimum=8)
    batch = model.batch(x)
    given = None if frame is None else _frames(frame, batch.rows, latent)
    found = []
    for row in range(batch.rows):
        with evaluating(model):
            problem = model.given(batch.take(slice(row, row + 1)), "posterior" if given is None else "prior")
            box = _box(problem) if given is None else given[row]
            nodes, cell = _grid(box, side)
            found.append((box, nodes, cell.prod().log().expand(len(nodes)), _log_joint(problem, nodes)))
    frames, nodes, log_weight, log_joint = (torch.stack(column) for column in zip(*found, strict=True))
    log_mass = log_joint + log_weight
    log_evidence = log_mass.logsumexp(1)
    halves = torch.stack([log_mass[:, part].logsumexp(1) for part in _halves(side, latent)]) + latent * math.log(2)
    change = (halves - log_evidence).abs().amax(0)
    outside = (_outside(frames, log_joint, side) - log_evidence).exp().log1p()
    rounding = torch.finfo(model.dtype).eps * log_evidence.abs()
    like = torch.empty(0, dtype=model.dtype, device=model.device)
    error = (change + outside + rounding).nan_to_num(nan=math.inf)
    return Quadrature(frames, nodes, log_weight, log_joint, log_evidence, error, side, like)


def _frames(frame: Any, rows: int, latent: int) -> Tensor:
    ends = torch.as_tensor(checks.array(frame, "frame"), dtype=torch.float64)
    if ends.shape == (2, latent):
        ends = ends.expand(rows, 2, latent)
    if ends.shape != (rows, 2, latent):
        raise InputError(f"a frame of shape {tuple(ends.shape)}", f"(2, {latent}) or ({rows}, 2, {latent})")
    if not bool((ends[:, 0] < ends[:, 1]).all()):
        raise InputError("a frame without extent", "low ends below high ends")
    return ends


def _log_joint(problem: Problem, z: Tensor) -> Tensor:
    """log p(x, z) of the problem's one row, (node,), float64; −∞ where it is not a number."""
    z = z.to(problem.batch.x.device, problem.batch.x.dtype).unsqueeze(1)
    parts = [problem.log_joint(some)[:, 0].double().cpu() for some in torch.split(z, PASS)]
    return torch.cat(parts).nan_to_num(nan=-math.inf, posinf=-math.inf)


def _grid(box: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Midpoints of cells, (side ** latent, latent), and the extent of a cell, (latent,)."""
    cell = (box[1] - box[0]) / side
    axes = [
        low + each * (torch.arange(side, dtype=torch.float64) + 0.5) for low, each in zip(box[0], cell, strict=True)
    ]
    return torch.cartesian_prod(*axes).view(-1, len(axes)), cell


def _box(problem: Problem) -> Tensor:
    """Low and high ends of a box that holds the row's posterior and its q, (2, latent), float64."""
    latent = problem.noise_size
    ticks = torch.linspace(-REACH, REACH, 13, dtype=torch.float64)
    wide = torch.cartesian_prod(*[ticks] * latent).view(-1, latent)
    prior, q = _pushed(problem, problem.prior, wide), _pushed(problem, problem.start, _rings(latent))
    seeds, side = torch.cat((q, _pushed(problem, problem.prior, _rings(latent)))), COARSE[latent]
    heights = _log_joint(problem, seeds)
    box = _around(torch.cat((prior, seeds)))
    for _ in range(LEVELS):
        nodes, cell = _grid(box, side)
        z, height = torch.cat((nodes, seeds)), torch.cat((_log_joint(problem, nodes), heights))
        held = z[height >= height.max() - DEPTH]
        before, box = box[1] - box[0], _around(held, cell)
        if bool(((box[1] - box[0]) >= SHRUNK * before).all()):
            break
    return _around(torch.cat((box, q)))


def _pushed(problem: Problem, transport: Transport, u: Tensor) -> Tensor:
    """Where noise (n, latent) is pushed to, (n, latent), float64; what is not finite is left out."""
    x = problem.batch.x
    z = transport.push(u.unsqueeze(1).to(x.device, x.dtype))[0][:, 0].double().cpu()
    return z[z.isfinite().all(1)]


def _rings(latent: int) -> Tensor:
    """Noise in all directions at the radii `RINGS`, (n, latent)."""
    radii = torch.tensor(RINGS, dtype=torch.float64)
    if latent == 1:
        return torch.cat((-radii, radii)).unsqueeze(1)
    angle = torch.arange(DIRECTIONS, dtype=torch.float64) * (2 * math.pi / DIRECTIONS)
    circle = torch.stack((angle.cos(), angle.sin()), 1)
    return (radii.view(-1, 1, 1) * circle).flatten(0, 1)


def _around(z: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    """The smallest box that holds points (n, latent), wider by a margin on every side, (2, latent)."""
    return torch.stack((z.amin(0) - margin, z.amax(0) + margin))


def _halves(side: int, latent: int) -> list[Tensor]:
    """The 2 ** latent sets of every second node along each axis."""
    index = torch.arange(side**latent).view((side,) * latent)
    offsets = itertools.product((0, 1), repeat=latent)
    return [index[tuple(slice(offset, None, 2) for offset in each)].flatten() for each in offsets]


def _edge(side: int, latent: int) -> Tensor:
    """The nodes on the edge of the box."""
    index = torch.arange(side**latent).view((side,) * latent)
    inside = index[(slice(1, -1),) * latent].flatten()
    outer = torch.ones(side**latent, dtype=torch.bool)
    outer[inside] = False
    return outer.nonzero()[:, 0]


def _outside(frame: Tensor, log_joint: Tensor, side: int) -> Tensor:
    """log of the integral beyond the faces of the box, (row,): each fibre falls on as steeply as at the face.

    Where log p(x, z) does not fall there, the fibre is taken to go on for another width of the box.
    """
    rows, _, latent = frame.shape
    width = frame[:, 1] - frame[:, 0]
    values = log_joint.view(rows, *(side,) * latent)
    parts = []
    for axis in range(latent):
        face = width.log().sum(1) - width[:, axis].log() - (latent - 1) * math.log(side)  # log of a cell of the face
        for end, inner in ((0, 1), (-1, -2)):
            last = values.select(axis + 1, end).reshape(rows, -1)
            fall = (values.select(axis + 1, inner).reshape(rows, -1) - last) * (side / width[:, axis : axis + 1])
            reach = torch.maximum(fall.nan_to_num(), 1 / width[:, axis : axis + 1]).log()
            parts.append((last - reach).logsumexp(1) + face)
    return torch.stack(parts).logsumexp(0)
