"""Diagnostics: what a trained model is worth, in nats, with standard errors."""

from vaelid.diagnostics.evaluation import ACTIVE, Estimate, Evaluation, evaluate

__all__ = ["ACTIVE", "Estimate", "Evaluation", "evaluate"]
