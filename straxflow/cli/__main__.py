"""`python -m straxflow.cli` is `straxflow`."""

import sys

from straxflow.cli.main import main

sys.exit(main())
