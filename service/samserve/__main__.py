"""`python -m samserve`."""

import sys

from samserve.cli import main

sys.exit(main())
