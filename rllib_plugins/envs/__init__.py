"""Environments that this project adds to Gymnasium, registered when this package is imported.

Knows Gymnasium and numpy; must not know tasks, tutors or students.
"""

from __future__ import annotations
