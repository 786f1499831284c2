"""The lean rollout: vector environments stepped into preallocated arrays, and the arrays that learners read.

Owns sampling without episode objects. Must not know losses or optimisers (``algorithms``), nor how advice is decided
(``advising``).
"""
