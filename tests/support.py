"""What several test files need."""

import re

import numpy as np
import pytest

from vaelid.errors import InputError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 8, 5), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 8, 5, 3), dtype=np.uint8)
REAL = RNG.normal(size=(7, 3))


def refused(match: str, call, error=InputError):
    """The line of the error that ``call`` raises, one line that matches ``match``."""
    with pytest.raises(error) as raised:
        call()
    line = str(raised.value)
    assert "\n" not in line
    assert re.search(match, line), line
    return line
