"""`python -m fishjax` is `fishjax`."""

import sys

from fishjax.cli import main

if __name__ == "__main__":
    sys.exit(main())
