"""``python -m dpcontrol`` is the console script ``dpcontrol``."""

import sys

from dpcontrol.cli import main

if __name__ == "__main__":
    sys.exit(main())
