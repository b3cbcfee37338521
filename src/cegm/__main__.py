"""`python -m cegm`: the command line, as `torchrun -m cegm` starts it in every process."""

import sys

from cegm.lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
