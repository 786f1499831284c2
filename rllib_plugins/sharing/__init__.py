"""What several EnvRunners of one trial know in common: their advice, its budget, what was measured of it."""
