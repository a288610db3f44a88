"""`python -P -m stoker.cli` is the `stoker` script without its script."""

import sys

from stoker.cli.main import main

sys.exit(main())
