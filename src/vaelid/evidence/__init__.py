"""Evidence: log p(x) between measured bounds, each with its error, its kind and its cost."""

from vaelid.evidence.annealing import Annealing, annealing, reverse_annealing
from vaelid.evidence.bracket import bracket
from vaelid.evidence.budget import Budget
from vaelid.evidence.importance import Importance, importance
from vaelid.evidence.result import Bracket, Cost
from vaelid.evidence.schedules import Linear, Placed, Schedule, Sigmoid
from vaelid.evidence.simulation import Simulated, simulate

__all__ = [
    "Annealing",
    "Bracket",
    "Budget",
    "Cost",
    "Importance",
    "Linear",
    "Placed",
    "Schedule",
    "Sigmoid",
    "Simulated",
    "annealing",
    "bracket",
    "importance",
    "reverse_annealing",
    "simulate",
]
