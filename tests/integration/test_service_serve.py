"""A tutor on real Serve, with a fake endpoint in place of a model: deploy, ask, share the store, take down."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.endpoint_fake import Endpoint, running_endpoint, write_serve_file
from tutor_service import serving
from tutor_service.client import connect
from tutor_service.config import TutorConfig
from tutor_service.errors import UserError
from tutor_service.local_ray import leave_ray
from tutor_service.paths import HOME_VARIABLE
from tutor_service.schema import Advice, AdviceRequest
from tutor_service.serving.ask import ask
from tutor_service.serving.live_replicas import num_running
from tutor_service.serving.serve_file import deploy_serve_file, read_serve_file
from tutor_service.store import AdviceStore

KEY_VARIABLE = "REMOTE_KEY"
KEY = "sesame-7f3a9c"


@pytest.fixture(scope="module")
def endpoint():
    with running_endpoint() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def home(tmp_path_factory):

    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(folder))
        patch.setenv(KEY_VARIABLE, KEY)  # in the node's own environment: Ray's processes inherit it
        start_ray()
        yield folder
        leave_ray()


def start_ray() -> None:
    import ray

    ray.init(address="local", include_dashboard=False, num_cpus=1, log_to_driver=False, _node_ip_address="127.0.0.1")


@pytest.fixture(autouse=True)
def nothing_is_left(home):
    yield
    serving.delete([status.name for status in serving.status()])


def tutor(endpoint: Endpoint, name: str = "remote", **fields: object) -> TutorConfig:
    scaling = {"num_cpus": 0}
    return TutorConfig(name=name, backend="openai", model="m", base_url=endpoint.url, **{"scaling": scaling, **fields})


def request(state: object) -> AdviceRequest:
    return AdviceRequest("Rules.", f"State {state}.", ("left", "right"))


def test_two_tutors_without_a_port_then_taken_down(endpoint, home):
    said: list[str] = []
    tutors = [tutor(endpoint), tutor(endpoint, "sharp", temperature=0.5)]
    assert serving.deploy(tutors, progress=said.append) == ["remote", "sharp"]
    assert any("ready" in line for line in said)
    asked = len(endpoint.bodies)
    answers = connect(tutors[0]).advise([request(1), request(2), request(1)])
    assert [answer.source for answer in answers if answer] == ["model", "model", "store"]
    assert len(endpoint.bodies) == asked + 2
    assert connect(tutors[0]).advise([request(2)])[0].source == "store"
    assert {status.name: status.status for status in serving.status()} == {"remote": "RUNNING", "sharp": "RUNNING"}
    with AdviceStore(home / "advice" / "remote", readonly=True) as store:
        contexts = [entry.context for entry in store.entries()]
    assert {context.state for context in contexts if context} == {"State 1.", "State 2."}
    assert ask(tutors[0], request(2)).prompt.startswith("Rules.\n\nState 2.")
    serving.delete(["remote"])
    assert [status.name for status in serving.status()] == ["sharp"]
    serving.deploy([tutors[0]])
    assert connect(tutors[0]).advise([request(1)])[0].source == "store"
    assert len(endpoint.bodies) == asked + 3, "one start's probe, and nothing asked twice"
    serving.delete(["sharp", "nobody"])


class Callers:
    """Callers who all ask at once, one of them at least held up at the endpoint; left when all are back.

    Args:
        config: Their tutor.
        name: Begins the state that each of them asks about.
        count: How many they are.
        until: Returns when the endpoint may answer; called on a thread of its own, while the context is open.
    """

    DEADLINE_S = 60.0

    def __init__(
        self, endpoint: Endpoint, config: TutorConfig, name: str, count: int, until: Callable[[], object]
    ) -> None:
        self.answers: list[Advice | None] = []
        self._endpoint = endpoint
        self._name = name
        self._until = until
        self._callers = [threading.Thread(target=self._ask, args=(config, number)) for number in range(count)]
        self._releaser = threading.Thread(target=self._release)

    def __enter__(self) -> Callers:
        self._endpoint.hold = f"State {self._name}"
        for caller in self._callers:
            caller.start()
        wait_until(lambda: any(self._endpoint.hold in str(body["messages"]) for body in self._endpoint.bodies))
        self._releaser.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in (self._releaser, *self._callers):
            thread.join(self.DEADLINE_S + 5)
            assert not thread.is_alive(), "a caller hangs"

    def _ask(self, config: TutorConfig, number: int) -> None:
        self.answers += connect(config, deadline_s=self.DEADLINE_S).advise([request(f"{self._name} {number}")])

    def _release(self) -> None:
        try:
            self._until()
        finally:
            self._endpoint.hold = ""


def wait_until(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_callers_in_flight_are_answered_while_their_tutor_changes_and_goes(endpoint, home):
    """Two replicas become one, the one becomes that of another model, and the tutor is taken down."""
    scaling = {"num_cpus": 0, "min_replicas": 2, "max_replicas": 2}
    both = tutor(endpoint, "going", concurrency=1, scaling=scaling)
    one = tutor(endpoint, "going", concurrency=1, scaling={"num_cpus": 0})
    other = one.model_copy(update={"model": "other", "concurrency": 2})

    def other_starts() -> None:
        wait_until(lambda: any(body["model"] == "other" for body in endpoint.bodies))

    serving.deploy([both])
    assert num_running("tutor-going", "TutorReplica") == 2, "what the gateway's window follows"
    with Callers(endpoint, both, "fewer", 6, until=lambda: time.sleep(2)) as fewer:
        serving.deploy([one])
    with Callers(endpoint, one, "another", 6, until=other_starts) as another:
        serving.deploy([other])
    with Callers(endpoint, other, "gone", 2, until=lambda: time.sleep(1)) as gone:
        serving.delete(["going"])
    answers = [*fewer.answers, *another.answers, *gone.answers]
    assert len(answers) == 14 and None not in answers
    with AdviceStore(home / "advice" / "going", readonly=True) as store:
        contexts = [entry.context for entry in store.entries()]
    kept = {(context.state, json.loads(context.identity)["model"]) for context in contexts if context}
    asked = [(body["messages"][0]["content"].split("\n"), body["model"]) for body in endpoint.bodies]
    told = {(lines[2], model) for lines, model in asked if lines[0] == "Rules."}
    assert kept <= told, "an answer is kept as that of a model that did not give it"
    assert len({state for state, _ in kept}) == len(answers)


def test_a_store_that_cannot_be_used_stops_nobody(endpoint, home):
    (home / "advice").mkdir(exist_ok=True)
    (home / "advice" / "storeless").write_text("in the way")
    config = tutor(endpoint, "storeless")
    serving.deploy([config])
    assert connect(config).advise([request(1)])[0].source == "model"
    assert connect(config).advise([request(1)])[0].source == "store", "from the gateway's memory"
    (status,) = serving.status()
    assert status.stored is None


def test_a_tutor_that_cannot_start_says_why_and_is_gone(endpoint, home):
    endpoint.status = 404
    try:
        with pytest.raises(UserError, match=r"tutor 'broken': .* refuses model 'm': as told \(HTTP 404\)"):
            serving.deploy([tutor(endpoint, "broken")])
    finally:
        endpoint.status = 200
    assert serving.status() == []


def test_an_endpoints_key_is_read_on_the_replicas_node_and_shown_nowhere(endpoint, home):
    import cloudpickle
    import psutil
    import ray

    from tutor_service.serving.deployment import build

    config = tutor(endpoint, "keyed", api_key_env=KEY_VARIABLE)
    asked = len(endpoint.keys)
    serving.deploy([config])
    assert set(endpoint.keys[asked:]) == {f"Bearer {KEY}"}
    travels = cloudpickle.dumps(build(config))
    assert KEY_VARIABLE.encode() in travels and KEY.encode() not in travels
    processes = psutil.Process().children(recursive=True)
    commands = [" ".join(process.cmdline()) for process in processes if process.is_running()]
    assert any("ServeReplica:tutor-keyed" in command for command in commands)
    assert not any(KEY in command for command in commands)
    session = Path(ray._private.worker.global_worker.node.get_session_dir_path())
    logs = [path for path in session.rglob("*") if path.is_file() and not path.is_symlink()]
    assert logs and not any(KEY.encode() in path.read_bytes() for path in logs)


def test_a_key_that_only_the_driver_has_is_not_sent_after_the_replica(endpoint, home, monkeypatch):
    monkeypatch.setenv("LATE_KEY", "too-late")
    with pytest.raises(UserError, match=r"tutor 'keyless': environment variable 'LATE_KEY' holds no API key on node"):
        serving.deploy([tutor(endpoint, "keyless", api_key_env="LATE_KEY")])
    assert serving.status() == []


def test_http_cannot_be_added_to_a_serve_without_it(endpoint, home):
    serving.deploy([tutor(endpoint)])
    with pytest.raises(UserError, match="without HTTP already"):
        serving.deploy([tutor(endpoint)], http=serving.HttpConfig(port=0))


def test_a_gpu_tutor_is_refused_before_anything_is_deployed(endpoint, home):
    with pytest.raises(UserError, match="GPU"):
        serving.deploy([tutor(endpoint), TutorConfig(name="big", model="a/b", scaling={"num_gpus": 1})])
    assert serving.status() == []


def test_a_second_ray_has_a_serve_of_its_own_and_no_token_that_only_the_driver_has(
    endpoint, home, tmp_path, monkeypatch
):
    serving.deploy([tutor(endpoint)])
    leave_ray()
    start_ray()
    assert serving.status() == []
    port = free_port()
    assert serving.deploy([tutor(endpoint)], http=serving.HttpConfig(port=port)) == ["remote"]
    assert connect(tutor(endpoint)).advise([request(1)])[0] is not None
    monkeypatch.setenv("LLM_TUTORS_TOKEN", "too-late")
    with pytest.raises(UserError, match="'LLM_TUTORS_TOKEN' holds no bearer token on node"):
        deploy_serve_file(read_serve_file(str(write_serve_file(tmp_path, endpoint, port))))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_light_modules_import_nothing_heavy():
    script = """
        import sys
        import tutor_service.serving, tutor_service.serving.ask, tutor_service.embedded, tutor_service.prompts.chat
        import tutor_service.gateway.gateway, tutor_service.engines.base
        heavy = {"ray", "torch", "vllm", "transformers", "openai", "mlflow"} & set(sys.modules)
        sys.exit(f"imported {heavy}" if heavy else 0)
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
