"""Hold what several benchmarks measure with: students and their peers, learning curves, profiles."""
