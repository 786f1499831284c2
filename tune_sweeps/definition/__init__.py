"""Define a sweep: the schema of its file, the grid of its trials, and every name that it uses."""
