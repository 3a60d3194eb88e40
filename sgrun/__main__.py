"""`python -m sgrun`: the command line."""

from __future__ import annotations

import sys

from sgrun.cli import main

sys.exit(main())
