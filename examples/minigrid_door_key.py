"""MiniGrid's DoorKey in words; needs `pip install minigrid`. Try `--task examples.minigrid_door_key:DoorKeyTask`."""

import numpy as np
from minigrid.core.constants import IDX_TO_OBJECT

from rllib_plugins.tasks import Task


class DoorKeyTask(Task):
    """The student sees 7 by 7 cells ahead of it; the mission is text that Gymnasium cannot flatten: hence `encode`."""

    name = "door_key"
    env_id = "MiniGrid-DoorKey-5x5-v0"
    actions = ("left", "right", "forward", "pickup", "drop", "toggle", "done")
    hint = "Fetch the key, stand before the door, toggle it, and walk through it to the goal."
    rules = "You see the cells before you. Pick up the key, open the door with it (toggle), and walk to the goal."

    def encode(self, observation):
        """Kind and state of each cell."""
        return (observation["image"][:, :, [0, 2]] / 10).astype(np.float32).reshape(-1)

    def describe(self, observation):
        """What is in sight and where: steps ahead, steps to the left (-) or right."""
        image, seen = observation["image"], []
        for (right, down), kind in np.ndenumerate(image[:, :, 0]):
            if (name := IDX_TO_OBJECT[int(kind)]) in ("key", "door", "goal", "wall") and 6 - down + abs(right - 3) < 5:
                state = ("open ", "closed ", "locked ")[image[right, down, 2]] if name == "door" else ""
                seen.append(f"{state}{name} {6 - down} {right - 3}")
        return f"Ahead and right: {', '.join(seen) or 'nothing'}."
