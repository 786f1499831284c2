"""Gymnasium's Taxi in words; moves into walls are masked by the environment. Try `--task examples.taxi:TaxiTask`."""

from rllib_plugins.tasks.tabular import TabularTask

PLACES = ("red (row 1 column 1)", "green (row 1 column 5)", "yellow (row 5 column 1)", "blue (row 5 column 4)")


class TaxiTask(TabularTask):
    """500 states; the oracle is computed from the environment's transition table."""

    name = "taxi"
    env_id = "Taxi-v3"
    actions = ("south", "north", "east", "west", "pickup", "dropoff")
    hint = "Drive to the passenger, pick up, drive to the destination, drop off; go around the walls."
    rules = (
        "You drive a taxi on 5 by 5 cells, rows counted from the north, columns from the west. A passenger "
        f"waits at one of four places: {', '.join(PLACES)}. Drive there, pickup, drive to the destination, dropoff: "
        "that pays 20. Every step costs 1; pickup or dropoff at a wrong place costs 10. Walls stand east of column 2 "
        "in rows 1 and 2, and east of columns 1 and 3 in rows 4 and 5."
    )

    def describe(self, observation):
        """Where the taxi is, where the passenger is, and where it wants to go."""
        rest, destination = divmod(observation, 4)
        rest, passenger = divmod(rest, 5)
        waits = "in the taxi" if passenger == 4 else f"at {PLACES[passenger]}"
        where = f"Taxi: row {rest // 5 + 1} column {rest % 5 + 1}."
        return f"{where} Passenger: {waits}. Destination: {PLACES[destination]}."
