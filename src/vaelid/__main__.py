"""``python -m vaelid`` is ``vaelid``."""

import sys

from vaelid.cli import main

if __name__ == "__main__":
    sys.exit(main())
