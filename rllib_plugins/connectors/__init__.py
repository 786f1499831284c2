"""The tutor in RLlib's own EnvRunner and algorithms. ``pieces`` acts, ``columns`` names what it adds to a batch."""

from rllib_plugins.connectors.config import TutoredEnvRunner, add_tutor

__all__ = ["TutoredEnvRunner", "add_tutor"]
