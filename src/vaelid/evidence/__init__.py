"""Evidence: log p(x) between measured bounds, each with its error, its kind and its cost."""

from vaelid.evidence.annealing import Annealing, annealing, reverse_annealing
from vaelid.evidence.bennett import bennett
from vaelid.evidence.bracket import bracket
from vaelid.evidence.budget import Budget
from vaelid.evidence.families import Diagonal, Flow, Full
from vaelid.evidence.gaps import Gaps, gaps
from vaelid.evidence.importance import Importance, importance
from vaelid.evidence.optimised import Optimised, optimise
from vaelid.evidence.posterior import Posterior, posterior, predictive
from vaelid.evidence.quadrature import Quadrature, quadrature
from vaelid.evidence.result import Bracket, Cost
from vaelid.evidence.schedules import Linear, Placed, Schedule, Sigmoid
from vaelid.evidence.simulation import Simulated, simulate

__all__ = [
    "Annealing",
    "Bracket",
    "Budget",
    "Cost",
    "Diagonal",
    "Flow",
    "Full",
    "Gaps",
    "Importance",
    "Linear",
    "Optimised",
    "Placed",
    "Posterior",
    "Quadrature",
    "Schedule",
    "Sigmoid",
    "Simulated",
    "annealing",
    "bennett",
    "bracket",
    "gaps",
    "importance",
    "optimise",
    "posterior",
    "predictive",
    "quadrature",
    "reverse_annealing",
    "simulate",
]
