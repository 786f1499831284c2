"""Measure what the project claims: one command each, ``python -m benchmarks.NAME [--quick | --smoke]``."""
