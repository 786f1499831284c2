"""Students: environments, tasks, the exploration module that asks a tutor, and the RLlib algorithms that learn.

Imports ``tutor_service.schema`` and ``tutor_service.client`` only; it must not know how advice is computed, nor what
a sweep is.
"""
