"""A task as a new user writes it, in ten lines: Gymnasium's Taxi, without an oracle or a vector of its own."""

from __future__ import annotations

from typing import Any

from rllib_plugins.tasks import Task


class OwnTaxiTask(Task):
    """Taxi by its number of state; a student sees 500 numbers, one of them 1."""

    name = "own_taxi"
    env_id = "Taxi-v3"
    rules = "You drive a taxi on 5 by 5 cells: fetch the passenger and drop them off at their destination."
    actions = ("south", "north", "east", "west", "pickup", "dropoff")

    def describe(self, observation: Any) -> str:
        """Return the number of the state."""
        return f"State {observation}."
