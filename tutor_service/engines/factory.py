"""Choose the engine of a tutor."""

from __future__ import annotations

from tutor_service.config import TutorConfig
from tutor_service.engines.base import Engine
from tutor_service.engines.orders import OrderAveraging


def make_engine(config: TutorConfig) -> Engine:
    """Make the engine of a tutor that is served."""
    engine = _make_plain(config)
    return engine if config.label_orders == 1 else OrderAveraging(engine, config.label_orders)


def _make_plain(config: TutorConfig) -> Engine:
    """Make the engine that evaluates one order of a prompt's labels."""
    if config.backend == "openai":
        from tutor_service.engines.endpoint.engine import OpenAIEngine

        return OpenAIEngine(config)
    # Apart, what Serve does costs a GPU no time; on a CPU the two share the cores anyway, and one needs less memory.
    apart = config.scaling.engine_process
    if config.scaling.num_gpus > 0 if apart is None else apart:
        from tutor_service.engines.process import EngineProcess

        return EngineProcess(config)
    from tutor_service.engines.vllm import VllmEngine

    return VllmEngine(config)
