"""Numbers as a reader wants them: a proper minus sign, as many digits as mean something, ``n/a`` for none."""

from __future__ import annotations

import math

from vaelid.diagnostics import Estimate


def number(value: float, decimals: int = 2) -> str:
    """With a proper minus sign; ``n/a`` where there is no finite value."""
    if not math.isfinite(value):
        return "n/a"
    return f"{round(value, decimals) + 0.0:,.{decimals}f}".replace("-", "−")  # + 0.0: no negative zero


def rounded(value: float, spread: float) -> str:
    """The value to a hundredth of what its feature spreads over."""
    if not math.isfinite(value):
        return "n/a"
    decimals = 2 - math.floor(math.log10(spread)) if spread > 0 and math.isfinite(spread) else 9
    if decimals > 8 or abs(value) >= 1e9:
        return f"{value:.4g}".replace("-", "−")
    return number(value, max(0, decimals))


def spoken(estimate: Estimate) -> str:
    """``−92.51 ± 1.30``, or the value alone where one row has no standard error."""
    return number(estimate.value) + (f" ± {number(estimate.se)}" if math.isfinite(estimate.se) else "")


def duration(seconds: float) -> str:
    """``14 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
