"""Sends sweeps to a Ray cluster that runs elsewhere: its address, what it must have, jobs. Knows no MLflow."""
