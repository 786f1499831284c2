"""Read a sweep's runs and say what they show: convergence, statistics, tables and figures."""
