"""The posterior of one row beside its q, and log p(x) of it between sides that come closer."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch

from vaelid.errors import InputTypeError
from vaelid.evidence import bracket, importance, posterior, quadrature
from vaelid.evidence.bracket import GATE
from vaelid.model import Problem, evaluating
from vaelid.random import Key
from vaelid.serving import Progress
from vaelid.studio.maps import middles
from vaelid.studio.planes import Plane
from vaelid.studio.subject import Subject

SAMPLES = (64, 256, 1024)  # of the rounds of importance sampling
DISTRIBUTIONS = (5, 10, 20, 40, 80)  # of the rounds of annealing
DRAWS, CHAINS = 1000, 4  # from p(z|x)
_KEY = Key(0).fold("studio")


def grid(subject: Subject, plane: Plane, number: int, frame: list[float] | None, side: int) -> dict[str, Any]:
    """p(z|x) and q(z|x) of two latents on a grid, the first row at the frame's y0.

    log p(x) and KL(q ‖ p(z|x)) come from `vaelid.evidence.quadrature` on a box of its own, whatever is on the screen.
    """
    batch = subject.batch(subject.places([number]))
    found = quadrature(subject.model, batch)
    with torch.no_grad(), evaluating(subject.model):
        problem = subject.model.given(batch)
    if frame is None:
        ends = plane.feet(found.frame[0].numpy())
        frame = [*ends.min(0).tolist(), *ends.max(0).tolist()]
    z = torch.from_numpy(plane.latent(middles(frame, side, side)))
    log_joint, log_q = _densities(problem, z)
    kl, kl_error = math.nan, math.nan
    if log_q is not None:
        values = found.kl(problem.start)
        kl, kl_error = float(values[0]), float(values[1])
    log_posterior = log_joint - found.log_evidence
    return {
        "kind": "grid",
        "log_posterior": log_posterior.float().numpy().reshape(side, side),
        "log_q": None if log_q is None else log_q.float().numpy().reshape(side, side),
        "frame": frame,
        "log_evidence": float(found.log_evidence),
        "error": float(found.error),
        "kl": kl,
        "kl_error": kl_error,
        "said": "" if log_q is not None else "q(z|x) of this model has no density at given z.",
    }


def samples(subject: Subject, plane: Plane, number: int) -> dict[str, Any]:
    """Draws from p(z|x) by `vaelid.evidence.posterior`, where they are in the plane, and what they are worth."""
    batch = subject.batch(subject.places([number]))
    how: dict[str, Any] = {"samples": DRAWS, "chains": CHAINS, "key": _KEY.fold("posterior")}

    try:
        found = posterior(subject.model, batch, **how)
    except InputTypeError:  # q has no inverse
        found = posterior(subject.model, batch, **how, start="posterior")
    points = plane.feet(found.z[:, 0].double().numpy(force=True))
    foot = ", at their feet on the slice" * plane.sliced
    return {
        "kind": "samples",
        "points": points.astype(np.float32),
        "r_hat": float(found.worst_r_hat[0]),
        "ess": float(found.worst_ess[0]),
        "acceptance": float(found.acceptance[0]),
        "warnings": list(found.warnings.get(number, ())),
        "said": f"{found.samples:,} draws from p(z|x) by Hamiltonian Monte Carlo, {found.chains} chains{foot}.",
    }


def evidence(subject: Subject, number: int, progress: Progress) -> dict[str, Any]:
    """Rounds of importance sampling and of brackets for one row, each with fresh noise and sent when it is there.

    How many rounds there are, and of what size, is settled beforehand: nothing stops when the sides look close. The
    approximate upper side is tried on simulated rows in the last round alone.
    """
    begun = time.perf_counter()
    batch = subject.batch(subject.places([number]))
    said: dict[str, Any] = dict.fromkeys(
        ("lower", "upper", "lower_se", "upper_se", "lower_kind", "upper_kind", "distributions", "tier")
    )
    said |= {"row": number, "warnings": [], "notes": [], "rounds": len(SAMPLES) + len(DISTRIBUTIONS)}

    def send(stage: str, **found: Any) -> None:
        said.update(found, stage=stage, seconds=time.perf_counter() - begun)
        said["round"] = said.get("round", 0) + 1
        progress.send(dict(said))

    for count in SAMPLES:
        terms = importance(subject.model, batch, count, _KEY.fold("importance", count))
        send(
            "importance sampling",
            elbo=float(terms.elbo[0]),
            elbo_se=float(terms.elbo_se[0]),
            reconstruction=float(terms.reconstruction[0]),
            kl=float(terms.rate[0]),
            iwae=float(terms.log_evidence[0]),
            iwae_se=float(terms.mc_se[0]),
            k_hat=float(terms.k_hat[0]),
            samples=count,
        )
    for count in DISTRIBUTIONS:
        key = _KEY.fold("bracket", count)
        simulated = GATE if count == DISTRIBUTIONS[-1] else 0  # costs as much as 32 rows
        found = bracket(subject.model, batch, distributions=count, simulated=simulated, key=key)
        send(
            "bracket",
            lower=float(found.lower[0]),
            upper=float(found.upper[0]),
            lower_se=float(found.lower_mc_se[0]),
            upper_se=float(found.upper_mc_se[0]),
            lower_kind=found.lower_kind,
            upper_kind=found.upper_kind[0],
            distributions=int(found.distributions[0]),
            tier=found.tier[0],
            warnings=list(found.warnings.get(number, ())),
            notes=list(found.notes),
        )
    return said


def _densities(problem: Problem, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """log p(x, z) and log q(z|x) of the problem's one row at points (n, d), (n,) each; no q without an inverse."""
    at = z.to(problem.batch.x).unsqueeze(1)
    with torch.no_grad(), evaluating(problem.model):
        log_joint = torch.cat([problem.log_joint(some)[:, 0] for some in torch.split(at, 4096)]).double().cpu()
        try:
            log_q = problem.start.log_prob(at)[:, 0].double().cpu()
        except InputTypeError:
            return log_joint, None
    return log_joint, log_q
