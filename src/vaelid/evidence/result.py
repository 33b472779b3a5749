"""What a bracket says: two sides of log p(x) per row, what kind of statement each is, and what it cost."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

BOUND, APPROXIMATE, NONE = "bound in expectation", "approximate", "no bound"


@final
@dataclass(frozen=True)
class Cost:
    """Decoder rows (one forward pass of one latent through the decoder, with or without its backward) and seconds.

    Attributes:
        pilot: rows spent on looks, settings and deciding runs; nothing of theirs is in a reported number.
        checks: rows spent on importance sampling from the prior, whose draws all rows share, and on simulated rows that
            show what an approximate upper side is worth.
        lower: rows spent on the reported lower sides.
        upper: rows spent on the reported upper sides.
        endpoints: rows spent on approximate posterior draws that upper sides on real data start from.
        seconds: wall time of everything.
    """

    pilot: int = 0
    checks: int = 0
    lower: int = 0
    upper: int = 0
    endpoints: int = 0
    seconds: float = 0.0

    @property
    def decoder_rows(self) -> int:
        """All decoder rows."""
        return self.pilot + self.checks + self.lower + self.upper + self.endpoints


@final
@dataclass(frozen=True, eq=False)
class Bracket:
    """log p(x) of every row between two sides, nats, float64, (rows,).

    ``exp(lower)`` has expectation p(x), so ``lower`` is below log p(x) in expectation, and above log p(x) + b with
    probability at most e⁻ᵇ (Markov's inequality). Where ``upper_kind`` is "bound in expectation", ``exp(−upper)`` has
    expectation 1 / p(x) and the mirror image holds. Where it is "approximate", the chains behind it started from
    draws that are only approximately from p(z|x). Where it is "no bound", ``upper`` is ∞.

    Attributes:
        row: the rows' numbers in their source, int64.
        lower: lower side.
        upper: upper side.
        lower_mc_se: Monte Carlo standard error of ``lower``, the model and the row held fixed.
        upper_mc_se: the same of ``upper``, given the draws from p(z|x) that it starts from. Their own chance is in the
            scatter over rows, and so in the standard error of the mean gap.
        upper_kind: what ``upper`` is, one word of `BOUND`, `APPROXIMATE`, `NONE` per row.
        tier: what made the numbers: "importance" sampling from q, or "annealing".
        distributions: number of distributions of the annealing, 0 where there was none.
        elbo: the ELBO under the draws of the cheap tier.
        k_hat: Pareto shape of the importance weights from q; above 0.7 they cannot be relied upon.
        bennett: Bennett's acceptance ratio, an estimate of log p(x) from both directions: of simulated rows that were
            annealed, NaN of others.
        warnings: sentences about single rows, row number → sentences.
        notes: sentences about the whole.
        cost: decoder rows and seconds.
        interrupted: whether it was stopped before its end.
    """

    row: Tensor
    lower: Tensor
    upper: Tensor
    lower_mc_se: Tensor
    upper_mc_se: Tensor
    upper_kind: tuple[str, ...]
    tier: tuple[str, ...]
    distributions: Tensor
    elbo: Tensor
    k_hat: Tensor
    bennett: Tensor | None
    warnings: dict[int, tuple[str, ...]]
    notes: tuple[str, ...]
    cost: Cost
    interrupted: bool = False

    lower_kind = BOUND  # of every row: the lower side is a bound in expectation, whatever the tier

    @property
    def gap(self) -> Tensor:
        """upper − lower, (rows,); may be negative by Monte Carlo error."""
        return self.upper - self.lower

    @property
    def kind(self) -> str:
        """The weakest kind of upper side among the rows."""
        return next(kind for kind in (NONE, APPROXIMATE, BOUND) if kind in self.upper_kind)

    def sure(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Sides that each hold with probability ``level`` per row, by Markov's inequality: lower − log 1/(1 − level),
        and upper + log 1/(1 − level) where it is a bound in expectation, else ∞.
        """
        slack = -math.log1p(-level)
        exact = torch.tensor([kind == BOUND for kind in self.upper_kind])
        return self.lower - slack, torch.where(exact, self.upper + slack, math.inf)

    def as_dict(self) -> dict[str, Any]:
        """Means over rows and the rows themselves as plain numbers: the JSON of ``vaelid evidence``."""
        rows = len(self.row)
        table: dict[str, Any] = {
            "lower": _mean(self.lower),
            "upper": _mean(self.upper),
            "gap": _mean(self.gap),
            "lower_kind": self.lower_kind,
            "upper_kind": self.kind,
            "lower_mc_se": _mc_se(self.lower_mc_se),
            "upper_mc_se": _mc_se(self.upper_mc_se),
            "lower_data_se": _data_se(self.lower),
            "upper_data_se": _data_se(self.upper),
            "gap_se": _data_se(self.gap),
            "elbo": _mean(self.elbo),
            "elbo_se": _data_se(self.elbo),
            "rows": rows,
            "rows_with_warnings": len(self.warnings),
            "seconds": self.cost.seconds,
            "decoder_rows": self.cost.decoder_rows,
            "cost": {name: getattr(self.cost, name) for name in ("pilot", "checks", "lower", "upper", "endpoints")},
            "tiers": dict(Counter(self.tier)),
            "notes": list(self.notes),
            "interrupted": self.interrupted,
        }
        if self.bennett is not None:
            known = self.bennett[self.bennett.isfinite()]
            table |= {"bennett": _mean(known), "bennett_se": _data_se(known)}
        table["per_row"] = [
            {
                "row": int(self.row[i]),
                "lower": float(self.lower[i]),
                "upper": float(self.upper[i]),
                "upper_kind": self.upper_kind[i],
                "tier": self.tier[i],
                "warnings": list(self.warnings.get(int(self.row[i]), ())),
                "elbo": float(self.elbo[i]),
                "lower_mc_se": float(self.lower_mc_se[i]),
                "upper_mc_se": float(self.upper_mc_se[i]),
                "k_hat": float(self.k_hat[i]),
            }
            for i in range(rows)
        ]
        return table

    def frame(self) -> pd.DataFrame:
        """One line per row of data, as a pandas data frame.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas as pd

        lower_95, upper_95 = self.sure(0.95)
        return pd.DataFrame(
            {
                "row": self.row.numpy(),
                "lower": self.lower.numpy(),
                "upper": self.upper.numpy(),
                "gap": self.gap.numpy(),
                "lower_mc_se": self.lower_mc_se.numpy(),
                "upper_mc_se": self.upper_mc_se.numpy(),
                "lower_kind": self.lower_kind,
                "upper_kind": self.upper_kind,
                "lower_95": lower_95.numpy(),
                "upper_95": upper_95.numpy(),
                "elbo": self.elbo.numpy(),
                "k_hat": self.k_hat.numpy(),
                "tier": self.tier,
                "distributions": self.distributions.numpy(),
                "warnings": ["; ".join(self.warnings.get(int(row), ())) for row in self.row],
            }
        )

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw every row as seen from its lower side: the upper side as a bar, the ELBO below, warnings marked.

        Nats are drawn to scale up to 0.1 and in logarithms beyond.

        Args:
            axes: where to draw; new axes if None.

        Returns:
            The axes.
        """
        from matplotlib import pyplot

        axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")[1] if axes is None else axes
        order = self.gap.argsort(stable=True)
        gap, below = self.gap[order].numpy(), (self.elbo - self.lower)[order].numpy()
        kinds, rows = [self.upper_kind[i] for i in order.tolist()], range(len(order))
        for kind, colour in ((BOUND, "C0"), (APPROXIMATE, "C9")):
            here = [i for i in rows if kinds[i] == kind]
            if here:
                axes.vlines(here, 0, gap[here], color=colour, linewidth=2, label=f"upper side ({kind})")
        axes.plot(rows, below, ".", color="0.5", markersize=4, label="ELBO")
        warned = [i for i in rows if int(self.row[order[i]]) in self.warnings]
        if warned:
            axes.plot(warned, [0] * len(warned), "o", color="C3", markersize=3.5, label="with a warning")
        axes.axhline(0, color="0.3", linewidth=0.8)
        axes.set_yscale("symlog", linthresh=0.1)
        axes.set_xlabel("rows, by width")
        axes.set_ylabel("nats above the lower side")
        axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.16))
        return axes

    def __str__(self) -> str:
        table = self.as_dict()
        least, most = sorted((table["lower"] - table["elbo"], table["upper"] - table["elbo"]))
        lines = [
            f"log p(x), mean over {table['rows']:,} rows, nats",
            _line("lower", table["lower"], table["lower_mc_se"], table["lower_data_se"], self.lower_kind),
            _line("upper", table["upper"], table["upper_mc_se"], table["upper_data_se"], self.kind),
            f"  gap   {table['gap']:10.3f} ± {table['gap_se']:.3f} over rows",
            f"  ELBO  {table['elbo']:10.3f}, so KL(q ‖ p(z|x)) is between {least:.3f} and {most:.3f}",
            f"  {len(self.warnings):,} rows with a warning; {self.cost.decoder_rows:,} decoder rows, "
            f"{self.cost.seconds:.1f} s",
        ]
        return "\n".join(lines + [f"  {note}" for note in self.notes])


def _line(name: str, value: float, mc_se: float, data_se: float, kind: str) -> str:
    return f"  {name} {value:10.3f} ± {mc_se:.3f} Monte Carlo, ± {data_se:.3f} over rows   {kind}"


def _mean(values: Tensor) -> float:
    return float(values.mean())


def _mc_se(values: Tensor) -> float:
    """Standard error of the mean of independent estimates."""
    return float(values.square().sum().sqrt() / len(values))


def _data_se(values: Tensor) -> float:
    return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
