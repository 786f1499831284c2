"""Students: environments, tasks, the exploration module that asks a tutor, and the RLlib algorithms that learn.

It asks the tutor service through its client; it knows neither how advice is computed nor what a sweep is.
"""
