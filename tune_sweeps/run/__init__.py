"""Run a sweep: its folder, its estimate, its trials and what is seen of them meanwhile."""
