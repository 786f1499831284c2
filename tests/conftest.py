"""What all tiers share: time for property tests, since a busy machine is no defect, and one folder for machine code."""

import os

from hypothesis import settings

from tutor_service.paths import home

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

os.environ.setdefault("NUMBA_CACHE_DIR", str(home() / "compiled"))  # many tests set a home of their own
