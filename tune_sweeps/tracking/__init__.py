"""Record what happens to trials, on disk and in MLflow, and read it back."""
