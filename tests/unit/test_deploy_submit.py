"""What `tutor submit` finds wrong before a job exists, and what travels with a job."""

from __future__ import annotations

import contextlib
import inspect
import json
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from tune_sweeps.cluster import submit
from tune_sweeps.cluster.address import dashboard_url, keeps_secrets
from tune_sweeps.cluster.bundle import entrypoint, runtime_env, submission_id, write_bundle
from tune_sweeps.cluster.dashboard import HEAD, ClusterFacts, read_facts
from tune_sweeps.cluster.job_entry import NodeReport, _report, check_reports, unwritable
from tune_sweeps.cluster.requirements import check_tutors, check_versions
from tune_sweeps.definition.loading import load_sweep
from tutor_service.config import TutorConfig
from tutor_service.errors import UserError
from tutor_service.prompts.chat_templates import read_template
from tutor_service.ray_probe import find_token
from tutor_service.tutor_files import load_tutor

TOKEN = "the-right-token"


class TestAddress:
    @pytest.mark.parametrize(
        ("typed", "url"),
        [
            ("127.0.0.1", "http://127.0.0.1:8265"),
            ("head.example.com:9000", "http://head.example.com:9000"),
            ("http://head:8265/", "http://head:8265"),
            ("https://ray.example.com", "https://ray.example.com"),
            ("https://ray.example.com/team/", "https://ray.example.com/team"),
            ("http://[::1]:8265", "http://[::1]:8265"),
        ],
    )
    def test_takes_what_people_type(self, typed: str, url: str) -> None:
        assert dashboard_url(typed) == url

    @pytest.mark.parametrize(
        "typed", ["", "ray://head:10001", "ftp://head", "http://", "http://head:99999", "http://head:8265/?a=b"]
    )
    def test_refuses_other_addresses_and_says_which_is_wanted(self, typed: str) -> None:
        with pytest.raises(UserError, match="8265"):
            dashboard_url(typed)

    def test_refuses_a_password_in_the_address_without_repeating_it(self) -> None:
        with pytest.raises(UserError) as error:
            dashboard_url("http://me:hunter2@head:8265")
        assert "RAY_AUTH_TOKEN" in str(error.value) and "hunter2" not in str(error.value)

    @pytest.mark.parametrize(
        ("url", "kept"),
        [
            ("https://ray.example.com", True),
            ("http://127.0.0.1:8265", True),
            ("http://[::1]:8265", True),
            ("http://localhost:8265", True),
            ("http://10.0.0.3:8265", False),
            ("http://head:8265", False),
        ],
    )
    def test_knows_where_a_token_can_be_read_on_the_way(self, url: str, kept: bool) -> None:
        assert keeps_secrets(url) is kept


class TestToken:
    def test_is_looked_for_in_rays_order(self, tmp_path: Path) -> None:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("from-home\n")
        (tmp_path / "named").write_text("from-path\n")
        path = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "named")}
        assert find_token({}, tmp_path) == "from-home"
        assert find_token(path, tmp_path) == "from-path"
        assert find_token({**path, "RAY_AUTH_TOKEN": "from-environment"}, tmp_path) == "from-environment"

    def test_is_none_where_there_is_none(self, tmp_path: Path) -> None:
        assert find_token({}, tmp_path) is None

    def test_a_named_file_that_is_missing_or_empty_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="cannot be read"):
            find_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "missing")}, tmp_path)
        (tmp_path / "empty").touch()
        with pytest.raises(UserError, match="is empty"):
            find_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "empty")}, tmp_path)


class FakeDashboard(BaseHTTPRequestHandler):
    """Answers as Ray's dashboard does, with the token asked for."""

    answers: ClassVar[dict[str, Any]] = {
        "/api/version": {"version": "4", "ray_version": "2.60.0"},
        "/api/v0/cluster_metadata": {"result": True, "data": {"rayVersion": "2.60.0", "pythonVersion": "3.11.7"}},
        "/api/v0/nodes": {
            "data": {
                "result": {
                    "result": [
                        {"state": "ALIVE", "resources_total": {"CPU": 4.0, "advice_store": 1.0, HEAD: 1.0}},
                        {"state": "ALIVE", "resources_total": {"GPU": 2.0, "accelerator_type:A100": 1.0}},
                        {"state": "DEAD", "resources_total": {"GPU": 8.0}},
                    ]
                }
            }
        },
        "/api/serve/applications/": {
            "applications": {"tutor-llama": {"status": "RUNNING"}, "tutor-vicuna": {"status": "DEPLOYING"}}
        },
    }

    def do_GET(self) -> None:
        given = self.headers.get("Authorization")
        path = self.path.split("?")[0]
        status = 401 if given is None else 403 if given != f"Bearer {TOKEN}" else 200 if path in self.answers else 404
        body = json.dumps(self.answers.get(path, "refused") if status == 200 else "refused").encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def served(**changes: Any) -> Iterator[str]:
    """A dashboard, with other answers where they are given by path; yields its address."""
    handler = type("Handler", (FakeDashboard,), {"answers": FakeDashboard.answers | changes})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    with served() as url:
        yield url


class TestDashboard:
    def test_reads_versions_live_nodes_and_running_applications(self, dashboard: str) -> None:
        facts = read_facts(dashboard, TOKEN)
        assert (facts.ray_version, facts.python_version) == ("2.60.0", "3.11.7")
        assert sorted(node.get("GPU", 0) for node in facts.nodes) == [0, 2]
        assert facts.head_cpus == 4
        assert facts.applications == {"tutor-llama"}

    def test_a_wrong_token_is_named_as_such_and_not_repeated(self, dashboard: str) -> None:
        with pytest.raises(UserError, match="refuses the token") as error:
            read_facts(dashboard, "the-wrong-token")
        assert "the-wrong-token" not in str(error.value)

    def test_no_token_says_where_to_put_one(self, dashboard: str) -> None:
        with pytest.raises(UserError, match=r"asks for a token.*RAY_AUTH_TOKEN"):
            read_facts(dashboard, None)

    def test_nobody_there_is_said_at_once(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            with pytest.raises(UserError, match="cannot be reached"):
                read_facts(f"http://127.0.0.1:{unused.getsockname()[1]}", TOKEN)

    def test_silence_is_given_up_on(self) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            started = time.monotonic()
            with pytest.raises(UserError, match="does not answer"):
                read_facts(f"http://127.0.0.1:{silent.getsockname()[1]}", TOKEN, timeout_s=0.2)
            assert time.monotonic() - started < 5

    def test_an_answer_that_never_ends_is_given_up_on(self) -> None:
        """Each piece of it comes in time, and so would each of four calls."""

        heard = threading.Event()

        def dribble(server: socket.socket) -> None:
            with server.accept()[0] as connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                while not heard.wait(0.05):
                    connection.sendall(b" ")

        with socket.socket() as slow:
            slow.bind(("127.0.0.1", 0))
            slow.listen()
            thread = threading.Thread(target=dribble, args=[slow])
            thread.start()
            started = time.monotonic()
            with pytest.raises(UserError, match="does not answer"):
                read_facts(f"http://127.0.0.1:{slow.getsockname()[1]}", TOKEN, timeout_s=0.3)
            assert time.monotonic() - started < 5
            heard.set()
            thread.join()

    def test_something_else_there_is_no_dashboard(self, dashboard: str) -> None:
        with pytest.raises(UserError, match="no Ray dashboard"):
            read_facts(f"{dashboard}/elsewhere", TOKEN)


class TestCommand:
    """`tutor submit` itself, as it is typed: one line that says what is wrong, status 2, within 10 s."""

    def refused(self, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
        from tune_sweeps.cli import app as cli

        monkeypatch.setattr("sys.argv", ["tutor", "submit", "paper", "--address", url])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        return capsys.readouterr().err

    @pytest.fixture(autouse=True)
    def _token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
        monkeypatch.delenv("LLM_TUTORS_URL", raising=False)

    @pytest.mark.parametrize(
        ("path", "answer", "said"),
        [
            ("/api/version", {"ray_version": "2.9.0"}, "the cluster runs Ray 2.9.0, this machine"),
            ("/api/v0/cluster_metadata", {"data": {"pythonVersion": "3.8.1"}}, "the cluster runs Python 3.8.1"),
            (
                "/api/v0/nodes",
                {"data": {"result": {"result": [{"state": "ALIVE", "resources_total": {"CPU": 4.0}}]}}},
                "on one node; the cluster's 1 node(s) have: 4 CPUs",
            ),
        ],
    )
    def test_a_cluster_that_does_not_fit(
        self, path: str, answer: Any, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        import platform

        import ray

        here = {
            "/api/version": {"ray_version": ray.__version__},
            "/api/v0/cluster_metadata": {"data": {"pythonVersion": platform.python_version()}},
        }
        with served(**{**here, path: answer}) as url:
            assert said in self.refused(url, monkeypatch, capsys)

    def test_a_wrong_token(
        self, dashboard: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
        assert "refuses the token" in self.refused(dashboard, monkeypatch, capsys)

    def test_nobody_and_somebody_who_says_nothing(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            assert "cannot be reached" in self.refused(url, monkeypatch, capsys)
            silent.listen()
            monkeypatch.setattr(submit, "read_facts", partial(read_facts, timeout_s=0.3))
            assert "does not answer (waited 0.3 s)" in self.refused(url, monkeypatch, capsys)

    def test_a_cluster_that_says_nothing_is_waited_for_less_than_ten_seconds(self) -> None:
        assert inspect.signature(read_facts).parameters["timeout_s"].default < 10


def facts(*nodes: dict[str, float], applications: tuple[str, ...] = ()) -> ClusterFacts:
    return ClusterFacts("2.60.0", "3.11.7", nodes, frozenset(applications))


def tutor(name: str = "llama", **scaling: Any) -> TutorConfig:
    return TutorConfig.model_validate(
        {"name": name, "model": "m", "scaling": {"num_gpus": 1, "num_cpus": 0, **scaling}}
    )


class TestRequirements:
    def test_versions_that_match_pass_whatever_the_patch(self) -> None:
        check_versions(facts(), "2.60.0", "3.11.11")

    @pytest.mark.parametrize(("ray", "python", "word"), [("2.59.0", "3.11.7", "Ray"), ("2.60.0", "3.10.7", "Python")])
    def test_versions_that_differ_are_both_named(self, ray: str, python: str, word: str) -> None:
        with pytest.raises(UserError, match=f"runs {word} .*, this machine ") as error:
            check_versions(facts(), ray, python)
        assert (ray if word == "Ray" else python) in str(error.value)

    def test_a_gpu_tutor_without_gpus_says_how_many_are_missing(self) -> None:
        with pytest.raises(UserError, match=r"'llama' needs 1 GPU on one node.*have: 8 CPUs"):
            check_tutors(facts({"CPU": 8}), [tutor()], nodes_on_demand=False)

    def test_gpus_on_many_nodes_do_not_make_a_large_node(self) -> None:
        nodes = ({"GPU": 1.0}, {"GPU": 1.0})
        with pytest.raises(UserError, match=r"needs 2 GPUs on one node.*have: 1 GPU"):
            check_tutors(facts(*nodes), [tutor(num_gpus=2)], nodes_on_demand=False)

    def test_tutors_are_counted_together(self) -> None:
        wanted = [tutor("llama"), tutor("vicuna"), tutor("deepseek", min_replicas=2, max_replicas=2)]
        with pytest.raises(
            UserError, match=r"do not fit together: a replica of '.*' \(1 GPU on one node\) is left over"
        ):
            check_tutors(facts({"GPU": 3}), wanted, nodes_on_demand=False)
        check_tutors(facts({"GPU": 4}), wanted, nodes_on_demand=False)

    def test_the_kind_of_gpu_counts(self) -> None:
        nodes = {"GPU": 1.0, "accelerator_type:T4": 1.0}
        with pytest.raises(UserError, match=r"needs 1 GPU \(A100\) on one node.*have: 1 GPU \(T4\)"):
            check_tutors(facts(nodes), [tutor(accelerator_type="A100")], nodes_on_demand=False)
        check_tutors(facts(nodes), [tutor(accelerator_type="T4")], nodes_on_demand=False)

    def test_what_runs_already_or_comes_on_demand_or_needs_no_service_passes(self) -> None:
        check_tutors(facts({"CPU": 8}, applications=("tutor-llama",)), [tutor()], nodes_on_demand=False)
        check_tutors(facts({"CPU": 8}), [tutor()], nodes_on_demand=True)
        check_tutors(facts({"CPU": 8}), [TutorConfig(name="oracle", backend="reference")], nodes_on_demand=False)


class TestBundle:
    def test_holds_the_resolved_sweep_and_its_tutor_files(self, tmp_path: Path) -> None:
        mine = tmp_path / "here" / "mine.yaml"
        mine.parent.mkdir()
        mine.write_text("model: some/model\n")
        bundle = tmp_path / "bundle"
        bundle.mkdir()
        config = load_sweep("demo", [f"tutors=[oracle, {mine}]", "seeds=3", "name=mine"])
        write_bundle(bundle, config)
        sent = load_sweep(str(bundle / "sweep.yaml"))
        assert sent.tutors == ["oracle", "tutors/mine.yaml"] and sent.seeds == [0, 1, 2] and sent.name == "mine"
        assert yaml.safe_load((bundle / "tutors" / "mine.yaml").read_text()) == {"model": "some/model"}

    def test_a_tutor_file_named_as_the_sweeps_own_replaces_nothing(self, tmp_path: Path) -> None:
        mine = tmp_path / "sweep.yaml"
        mine.write_text("model: some/model\n")
        bundle = tmp_path / "bundle"
        bundle.mkdir()
        write_bundle(bundle, load_sweep("demo", [f"tutors=[{mine}]", "name=s"]))
        assert load_sweep(str(bundle / "sweep.yaml")).name == "s"
        assert yaml.safe_load((bundle / "tutors" / "sweep.yaml").read_text()) == {"model": "some/model"}

    def test_what_a_tutor_file_names_travels_with_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        here, bundle = tmp_path / "here", tmp_path / "bundle"
        here.mkdir()
        bundle.mkdir()
        (here / "notes.md").write_text("Hit below 17.")
        (here / "own.jinja").write_text("{{ messages[0].content }}")
        fields = {"model": "some/model", "briefing": "notes.md", "chat_template": str(here / "own.jinja")}
        (here / "mine.yaml").write_text(yaml.safe_dump(fields))
        write_bundle(bundle, load_sweep("demo", [f"tutors=[{here / 'mine.yaml'}]"]))
        for path in here.iterdir():
            path.unlink()
        monkeypatch.chdir(bundle)
        sent = load_tutor(load_sweep("sweep.yaml").tutors[0])
        assert sent.briefing == "Hit below 17."
        assert sent.chat_template is not None
        assert read_template(sent.chat_template) == "{{ messages[0].content }}"

    def test_own_modules_travel_and_installed_ones_do_not(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here, bundle = tmp_path / "here", tmp_path / "bundle"
        (here / "travelling_games" / "__pycache__").mkdir(parents=True)
        bundle.mkdir()
        (here / "travelling_games" / "lake.py").write_text("from rllib_plugins.tasks import Task\n")
        (here / "travelling_rule.py").write_text("")
        monkeypatch.syspath_prepend(str(here))
        config = load_sweep("demo", ["tutors=[oracle]"])
        advice = config.advice.model_copy(update={"rule": "travelling_rule:Rule"})
        tasks = ["travelling_games.lake:LakeTask", "json:loads"]
        write_bundle(bundle, config.model_copy(update={"tasks": tasks, "advice": advice}))
        sent = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
        assert sent == {"sweep.yaml", "travelling_games/lake.py", "travelling_rule.py"}

    def test_a_module_that_is_nowhere_is_named_before_anything_is_sent(self, tmp_path: Path) -> None:
        config = load_sweep("demo", ["tutors=[oracle]"]).model_copy(update={"tasks": ["nowhere_at_all:Task"]})
        with pytest.raises(UserError, match="no module 'nowhere_at_all' can be imported here"):
            write_bundle(tmp_path, config)

    def test_a_missing_tutor_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"nowhere\.yaml.*cannot be read"):
            write_bundle(tmp_path, load_sweep("demo", ["tutors=[nowhere.yaml]"]))

    def test_no_secret_of_this_process_travels(self, tmp_path: Path) -> None:
        environ = {
            "RAY_AUTH_TOKEN": "a",
            "LLM_TUTORS_TOKEN": "b",
            "MLFLOW_TRACKING_PASSWORD": "c",
            "HF_TOKEN": "d",
            "MLFLOW_TRACKING_URI": "http://mlflow:5000",
        }
        assert runtime_env(tmp_path, None, environ, None)["env_vars"] == {"MLFLOW_TRACKING_URI": "http://mlflow:5000"}

    def test_nodes_on_demand_are_known_to_the_job_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It looks for GPUs itself before it deploys tutors, and must not refuse what the autoscaler is to add."""
        import ray

        from tutor_service import serving
        from tutor_service.serving.checks import check_cluster

        monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 6.0}}])
        monkeypatch.delenv(serving.ON_DEMAND_VARIABLE, raising=False)
        with pytest.raises(UserError, match=r"needs 1 GPU on one node"):
            check_cluster([tutor(num_gpus=1)])
        for name, value in runtime_env(tmp_path, None, {}, None, nodes_on_demand=True)["env_vars"].items():  # type: ignore[attr-defined]
            monkeypatch.setenv(name, value)
        check_cluster([tutor(num_gpus=1)])

    def test_an_address_with_a_password_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="MLFLOW_TRACKING_URI holds a user name or password") as error:
            runtime_env(tmp_path, None, {}, "http://me:hunter2@mlflow:5000")
        assert "hunter2" not in str(error.value)

    def test_code_travels_only_when_asked_for_and_from_a_checkout(self, tmp_path: Path) -> None:
        assert "py_modules" not in runtime_env(tmp_path, None, {}, None)
        root = Path(__file__).parents[2]
        modules = runtime_env(tmp_path, root, {}, None)["py_modules"]
        assert modules == [str(root / name) for name in ("tutor_service", "rllib_plugins", "tune_sweeps")]
        with pytest.raises(UserError, match="no checkout"):
            runtime_env(tmp_path, tmp_path, {}, None)

    def test_job_ids_lead_back_to_the_sweep_and_never_repeat(self) -> None:
        assert submission_id("mine", []) == "sweep-mine"
        assert submission_id("mine", ["sweep-mine", "sweep-mine.2", "sweep-minerva"]) == "sweep-mine.3"

    def test_the_command_survives_a_shell(self) -> None:
        import shlex

        words = shlex.split(entrypoint("mine", "/shared/my runs; rm -rf /"))
        assert words[-6:] == ["sweep", "sweep.yaml", "--name", "mine", "--results", "/shared/my runs; rm -rf /"]


class TestNodes:
    head = NodeReport("head", "3.11.7", "0.1.0", True, "")

    def check(self, **changes: Any) -> None:
        from dataclasses import replace

        check_reports([self.head, replace(self.head, host="worker", **changes)], self.head, "/shared/runs")

    def test_fit_nodes_pass(self) -> None:
        self.check(python="3.11.9")

    def test_each_unfitness_names_the_node_and_the_remedy(self) -> None:
        with pytest.raises(UserError, match=r"cannot be written on node 'worker' \(Read-only file system\).*--results"):
            self.check(problem="Read-only file system")
        with pytest.raises(UserError, match=r"on node 'worker' is another one than the head's.*--results"):
            self.check(sees_marker=False)
        with pytest.raises(UserError, match=r"on node 'worker' llm-tutors is 0\.0\.9, on the head 0\.1\.0"):
            self.check(project="0.0.9")
        with pytest.raises(UserError, match="not installed"):
            self.check(project="")

    def test_a_folder_is_made_and_tried_and_left_empty(self, tmp_path: Path) -> None:
        assert unwritable(str(tmp_path / "new" / "runs")) == ""
        assert list((tmp_path / "new" / "runs").iterdir()) == []
        (tmp_path / "file").touch()
        assert unwritable(str(tmp_path / "file")) != ""


@pytest.mark.parametrize("arguments", [["submit", "--help"], ["jobs", "--help"]])
def test_the_commands_are_registered(arguments: list[str]) -> None:
    from typer.testing import CliRunner

    from tune_sweeps.cli.app import app

    assert CliRunner().invoke(app, arguments).exit_code == 0


def test_every_preset_can_be_sent(tmp_path: Path) -> None:
    from tune_sweeps.definition.loading import preset_names

    for preset in preset_names():
        folder = tmp_path / preset
        folder.mkdir()
        write_bundle(folder, load_sweep(preset))
        assert load_sweep(str(folder / "sweep.yaml")) == load_sweep(preset)


def test_a_node_that_dies_while_it_is_looked_at_is_passed_over(monkeypatch):
    import ray

    def get(error):
        raise error

    monkeypatch.setattr(ray, "get", get)
    assert _report(ray.exceptions.NodeDiedError("gone")) is None
    missing = ModuleNotFoundError("No module named 'tune_sweeps'")
    with pytest.raises(UserError, match=r"No module named 'tune_sweeps'. All nodes need one image"):
        _report(ray.exceptions.RayTaskError("look", "Traceback", missing))
