"""A bracket beside the truth: log p(x) of a model with two latents by quadrature, on simulated and on real rows.

    python -m benchmarks.quadrature RUN [--rows 200]

RUN is a run folder of `vaelid train … --latent 2`. The rule is the trapezoid's on a square grid over [−6, 6]², whose
error falls faster than any power of the step once the posterior is a few steps wide; the step is halved once, and the
largest change says how far the truth itself can be trusted.
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor

import vaelid as vd
from vaelid import runs
from vaelid.evidence import Bracket, bracket, importance, simulate
from vaelid.evidence.crowd import Crowd
from vaelid.model import VAE, evaluating
from vaelid.runs.session import batch_of, scored_rows
from vaelid.types import Batch

EDGE = 6.0


@torch.no_grad()
def truth(model: VAE, batch: Batch, step: float) -> Tensor:
    """log ∫ p(x|z) p(z) dz of every row, (rows,), by the trapezoidal rule."""
    axis = torch.arange(-EDGE, EDGE + step / 2, step, dtype=torch.float64)
    total = torch.full((batch.rows,), -math.inf, dtype=torch.float64)
    with evaluating(model):
        for first in torch.split(axis, max(1, 20_000 // len(axis))):
            z = torch.cartesian_prod(first, axis).to(model.dtype).unsqueeze(1)
            log_prior = model.prior_given().log_prob(z).double()
            total = torch.logaddexp(total, (Crowd(model, z).log_likelihood(batch) + log_prior).logsumexp(0))
    return total + 2 * math.log(step)


def compare(name: str, found: Bracket, log_p: Tensor) -> None:
    """Print how far the sides are from the truth and what the warnings are worth."""
    low, high = found.lower - log_p, found.upper - log_p
    missed = (low > 0.5) | (high < -0.5)
    far = missed | (low < -0.5) | (high > 0.5)
    warned = torch.tensor([int(row) in found.warnings for row in found.row])
    good = ~far
    print(f"\n{name}, {len(log_p)} rows; log p by quadrature {log_p.mean():.3f}")
    print(f"  lower − log p  mean {low.mean():+.3f}  worst {low.min():+.3f} {low.max():+.3f}")
    print(f"  upper − log p  mean {high.mean():+.3f}  worst {high.min():+.3f} {high.max():+.3f}")
    print(f"  the truth is outside the sides by more than 0.5 nat: {int(missed.sum())} rows, "
          f"{int((missed & ~warned).sum())} of them without a warning")  # fmt: skip
    print(f"  a side is more than 0.5 nat off: {int(far.sum())} rows, {int((far & ~warned).sum())} without a warning")
    print(f"  other rows that carry a warning: {int((good & warned).sum())} of {int(good.sum())}")
    print(f"  decoder rows per row: {found.cost.decoder_rows / len(log_p):,.0f}, {found.cost.seconds:.1f} s")
    order = torch.cat([kind.nonzero()[:, 0] for kind in (missed, far & ~missed, good & warned)])
    for row in order[:12].tolist():
        print(f"    row {int(found.row[row])}: lower {low[row]:+.2f} upper {high[row]:+.2f} "
              f"{'; '.join(found.warnings.get(int(found.row[row]), ())) or '-'}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--step", type=float, default=0.02)
    asked = parser.parse_args()
    run = runs.Run.open(asked.run)
    model, dataset = run.model(), run.dataset()
    real = batch_of(run, model, dataset, scored_rows(run, asked.rows))
    simulated = simulate(model, asked.rows, vd.Key(1))
    for name, rows, given in (("simulated", simulated.batch, simulated), ("real", real, real)):
        log_p = truth(model, rows, asked.step / 2)
        print(f"halving the step moves the truth by {(log_p - truth(model, rows, asked.step)).abs().max():.1e} at most")
        sampled = importance(model, rows, 5000, vd.Key(2))
        off = sampled.log_evidence - log_p
        print(f"importance sampling from q, K = 5000: {off.mean():+.3f} in mean, worst {off.min():+.3f}")
        compare(name, bracket(model, given, key=vd.Key(3)), log_p)


if __name__ == "__main__":
    main()
