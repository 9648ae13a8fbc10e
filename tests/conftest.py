"""Settings for all tests."""

import os

# The models here are tiny: several threads would only wait for each other. Must be set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
