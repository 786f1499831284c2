"""Keep sweeps in a folder or in an object store. Knows files, and neither trials nor MLflow."""
