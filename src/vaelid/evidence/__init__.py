"""Evidence: estimates of log p(x), each with its error and its effective sample size."""

from vaelid.evidence.importance import Importance, importance

__all__ = ["Importance", "importance"]
