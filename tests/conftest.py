"""One process per test worker, on the CPU, with no network."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
