"""`python -m platform_core.cli`, for launchers such as torchrun."""

import sys

from platform_core.cli import main

sys.exit(main())
