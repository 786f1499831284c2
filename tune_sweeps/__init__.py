"""Sweeps: the grid of algorithm × tutor × task × reuse, run by Ray Tune, kept in MLflow, and reported on."""
