"""`python -m wanda` is the same as the `wanda` command."""

import sys

from .cli import main

sys.exit(main())
