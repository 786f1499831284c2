import hashlib
import socket
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from tutor_service import machine, serving
from tutor_service.config import TutorConfig
from tutor_service.errors import UserError
from tutor_service.serving.checks import check_cluster, check_fields, check_port
from tutor_service.serving.lifecycle import _start_serve, failure, wait_until_ready
from tutor_service.tutor_files import load_tutor


def test_ports_in_use_are_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=str(port)):
            check_port(serving.HttpConfig(port=port))
    with pytest.raises(UserError, match=r"203\.0\.113\.1"):
        check_port(serving.HttpConfig(host="203.0.113.1", port=0))


def test_the_token_itself_travels_nowhere(tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text("geheim\n")
    monkeypatch.setenv("TUTOR_TOKEN", "geheim")
    expected = hashlib.sha256(b"geheim").digest()
    for http in (serving.HttpConfig(token_file=file), serving.HttpConfig(token_env="TUTOR_TOKEN")):
        access = http.access()
        assert access.token_sha256 == expected and "geheim" not in repr(access)
    assert serving.HttpConfig().access().token_sha256 is None


@pytest.mark.parametrize("content", ["", "  \n"])
def test_an_empty_token_is_no_token(tmp_path, monkeypatch, content):
    file = tmp_path / "token"
    file.write_text(content)
    monkeypatch.delenv("NO_SUCH_TOKEN", raising=False)
    for http in (
        serving.HttpConfig(token_file=file),
        serving.HttpConfig(token_env="NO_SUCH_TOKEN"),
        serving.HttpConfig(token_file=tmp_path / "absent"),
        serving.HttpConfig(token_env="A", token_file=file),
    ):
        with pytest.raises(UserError, match="token"):
            http.access()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"backend": "openai", "model": "m"}, "base_url"),
        ({"model": "/nowhere"}, "does not exist"),
        ({"model": "a/b", "scaling": {"min_replicas": 3, "max_replicas": 2}}, "max_replicas = 2"),
        (
            {"backend": "openai", "model": "m", "base_url": "http://x", "scaling": {"min_replicas": 2}},
            "min_replicas = 2",
        ),
    ],
)
def test_fields_that_cannot_work_are_named(fields, said):
    with pytest.raises(UserError, match=said):
        check_fields(TutorConfig(name="t", **fields))


@pytest.fixture
def cluster(monkeypatch):
    import ray

    resources = {"CPU": 2.0}
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": resources}])
    return resources


def test_a_gpu_tutor_without_gpus_is_told_what_to_do(cluster):
    with pytest.raises(UserError, match=r"'llama' needs 1 GPU on one node(.|\n)*smollm2"):
        check_cluster([load_tutor("llama")])
    cluster["GPU"] = 1.0
    check_cluster([load_tutor("llama")])


def test_too_many_tutors_for_the_cpus(cluster):
    tutor = TutorConfig(name="t", model="a/b", scaling={"min_replicas": 3, "max_replicas": 3})
    with pytest.raises(UserError, match=r"a replica of 't' \(1 CPU on one node\) is left over"):
        check_cluster([tutor])


def test_too_little_memory(cluster, monkeypatch):
    tutor = TutorConfig(name="t", model="a/b")
    monkeypatch.setattr(machine, "available_bytes", lambda: 2**30)
    with pytest.raises(UserError, match=r"1\.0 GiB are available"):
        check_cluster([tutor])
    monkeypatch.setattr(machine, "available_bytes", lambda: 2**40)
    check_cluster([tutor])


def test_references_are_never_deployed():
    assert serving.deploy([load_tutor("oracle"), load_tutor("random")]) == []


def test_deploying_needs_ray():
    with pytest.raises(UserError, match=r"ray\.init"):
        serving.deploy([load_tutor("smollm2")])
    assert serving.status() == []
    serving.delete(["smollm2"])


@pytest.fixture
def serve_says(monkeypatch):
    """Serve's status of one tutor at each look; None: it is not there."""
    from ray import serve

    looks = []

    def status():
        found = looks.pop(0)
        return SimpleNamespace(applications={"tutor-t": SimpleNamespace(status=found)} if found else {})

    monkeypatch.setattr(serve, "status", status)
    monkeypatch.setattr("tutor_service.serving.lifecycle._running_serve", object)
    monkeypatch.setattr("tutor_service.serving.lifecycle._POLL_S", 0.0)
    return looks


def test_a_tutor_that_somebody_is_still_to_deploy_is_waited_for(serve_says):
    serve_says += [None, None, "DEPLOYING", "RUNNING"]
    absent = []
    wait_until_ready(["t"], print, absent=absent.append)
    assert absent == ["t", "t"]


def test_a_tutor_that_goes_while_it_starts_was_taken_down(serve_says):
    serve_says += [None, "DEPLOYING", None]
    with pytest.raises(UserError, match="taken down while it started"):
        wait_until_ready(["t"], print, absent=print)
    serve_says += [None]
    with pytest.raises(UserError, match="taken down while it started"):
        wait_until_ready(["t"], print)


@pytest.mark.parametrize("is_there", [True, False])
def test_of_two_commands_that_start_serve_at_once_both_have_it(is_there, monkeypatch):
    import ray.serve.context
    from ray import serve

    def start(**options):
        raise ValueError("The name SERVE_CONTROLLER_ACTOR is already taken.")

    looks = [None, object() if is_there else None]
    monkeypatch.setattr(ray.serve.context, "_check_cached_client_alive", lambda: (None, None))
    monkeypatch.setattr(ray.serve.context, "_get_global_client", lambda **options: looks.pop(0))
    monkeypatch.setattr(serve, "start", start)
    with nullcontext() if is_there else pytest.raises(ValueError, match="already taken"):
        _start_serve(None)
    assert not looks


def test_where_there_is_no_serve_there_is_no_tutor(serve_says, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr("tutor_service.serving.lifecycle._running_serve", lambda: None)
    assert serving.status() == []
    serving.delete(["t"])


def test_a_tutor_that_is_deployed_anew_while_it_goes_is_waited_for_no_longer(serve_says, monkeypatch):
    import ray
    from ray import serve

    def delete(name, _blocking=True):
        if _blocking:
            raise TimeoutError("it is there still, after 60 s")
        deleted.append(name)

    deleted = []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(serve, "delete", delete)
    serve_says += ["RUNNING", "RUNNING", "DELETING", "DEPLOYING"]  # it answers before it begins
    serving.delete(["t"])
    serve_says += ["RUNNING", "RUNNING", "DELETING", None]
    serving.delete(["t"])
    assert deleted == ["tutor-t", "tutor-t"] and not serve_says


def test_the_reason_of_a_failed_deployment_is_found():
    trace = "Traceback\n  File x\nray.exceptions.X: tutor_service.errors.UserError: model 'x' is not there.\nmore"
    replica = SimpleNamespace(message=trace)
    overview = SimpleNamespace(message="Deploying app 'tutor-t' failed", deployments={"TutorReplica": replica})
    assert failure("t", overview) == "model 'x' is not there."
    overview.deployments = {}
    assert failure("t", overview).endswith("Deploying app 'tutor-t' failed")
