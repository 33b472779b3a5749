"""Objectives: pure functions of (problem, noise, step). A bound is reported; its surrogate is differentiated."""

from vaelid.objectives.base import Objective, Outcome
from vaelid.objectives.elbo import ELBO, Warmup
from vaelid.objectives.gradients import STL, DReG, ELBOGradient, IWAEGradient, Pathwise, ScoreFunction
from vaelid.objectives.iwae import IWAE

__all__ = [
    "ELBO",
    "IWAE",
    "STL",
    "DReG",
    "ELBOGradient",
    "IWAEGradient",
    "Objective",
    "Outcome",
    "Pathwise",
    "ScoreFunction",
    "Warmup",
]
