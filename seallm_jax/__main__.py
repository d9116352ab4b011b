"""`python -m seallm_jax COMMAND` is `seallm COMMAND`."""

import sys

from seallm_jax.cli.main import main

sys.exit(main())
