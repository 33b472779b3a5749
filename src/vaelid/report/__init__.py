"""Report: one self-contained HTML page that says how good a run is, verdict first."""

from vaelid.report.page import write

__all__ = ["write"]
