"""One gateway of several that share a PostgreSQL database, in a process of its own, with a model that counts.

Reads commands from standard input, one JSON object per line, and answers each with one:
``{"ask": [[state, …], …], "within_s": …}`` asks each list as a caller of its own, all at once; ``{"report": true}``
says what was evaluated and what was not sent yet. ``{"asked": …}`` is said whenever the model is.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

from tests.unit.service_fakes import FakeModel, make_gateway, request
from tutor_service.config import StoreConfig
from tutor_service.gateway.metrics import GatewayMetrics, exposition
from tutor_service.gateway.sharing import SharedQueue
from tutor_service.prompts.prompt import Prompt
from tutor_service.schema import Advice, AdviceError
from tutor_service.store.best_effort import BestEffortStore
from tutor_service.store.opening import open_database
from tutor_service.store.shared import SharedStore


class SlowModel(FakeModel):
    """Takes a while, and says what it was asked as soon as it is."""

    def __init__(self, first: float, seconds: float) -> None:
        super().__init__(lambda prompt: (first, 1 - first))
        self.seconds = seconds

    async def __call__(self, prompts: list[Prompt]) -> list[Advice | AdviceError]:
        say({"asked": len(prompts)})
        await asyncio.sleep(self.seconds)
        return await super().__call__(prompts)


def say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


async def main(folder: Path, address: str, password_file: Path, first: float, seconds: float) -> None:
    model, metrics = SlowModel(first, seconds), GatewayMetrics("shared")
    config = StoreConfig(location=address, password_file=password_file)
    store = SharedStore(BestEffortStore(folder), open_database(config), 2.0, metrics.store_failed)
    metrics.show_unsent(store.num_unsent)
    make_queue = partial(SharedQueue, store=store)
    gateway = make_gateway(model, store, metrics, make_queue=make_queue, batch=8, in_flight_per_replica=16)
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line)

    threading.Thread(target=read, daemon=True).start()
    say({"ready": True})
    while True:
        command = json.loads(await lines.get())
        if "ask" in command:
            calls = [gateway.advise([request(s) for s in states], command.get("within_s")) for states in command["ask"]]
            found = await asyncio.gather(*calls)
            say({"answers": [[a.probabilities[0] if isinstance(a, Advice) else None for a in each] for each in found]})
        else:
            evaluated = [" ".join(map(str, prompt.token_ids)) for prompt in model.evaluated]
            shown = exposition([metrics.families()]).decode()
            say({"evaluated": evaluated, "unsent": store.num_unsent(), "trouble": store.trouble, "metrics": shown})


if __name__ == "__main__":
    folder, address, password_file, first, seconds = sys.argv[1:]
    asyncio.run(main(Path(folder), address, Path(password_file), float(first), float(seconds)))
