"""Every file in ``deploy`` is held to its owner's own schema, and to what SECURITY.md promises."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.deploy_tree import DEPLOY, ROOT, load, load_all

BIN = Path(sys.executable).parent
SERVE_FILES = sorted((DEPLOY / "serve").glob("*.yaml"))
SECRET_NAME = re.compile(r"(token|password|secret|key)$", re.IGNORECASE)


def test_every_yaml_and_json_file_parses() -> None:
    for path in [*DEPLOY.rglob("*.yaml"), *DEPLOY.rglob("*.yml")]:
        assert all(document for document in load_all(path)), path
    for path in DEPLOY.rglob("*.json"):
        assert json.loads(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("path", SERVE_FILES, ids=lambda path: path.stem)
class TestServeFiles:
    def test_is_valid_by_serves_own_schema(self, path: Path) -> None:
        from ray.serve.schema import ServeDeploySchema

        config = ServeDeploySchema.model_validate(load(path))
        assert config.http_options.host == "127.0.0.1"
        names = [application.name for application in config.applications]
        assert len(set(names)) == len(names)

    def test_names_applications_and_routes_as_clients_look_for_them(self, path: Path) -> None:
        from tutor_service.client import app_name

        for application in load(path)["applications"]:
            tutor = application["args"]["tutor"]
            assert application["name"] == app_name(tutor)
            assert application["route_prefix"] == f"/{tutor}"

    def test_builds_the_application_that_it_describes(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Calls the builder as Serve does, and finds every deployment that the file changes; nothing is started."""
        import importlib

        monkeypatch.setenv("LLM_TUTORS_TOKEN", "a-token")
        monkeypatch.setattr("tutor_service.engines.models._hub_commit", lambda repo, revision: None)
        for application in load(path)["applications"]:
            module, _, function = application["import_path"].partition(":")
            built = getattr(importlib.import_module(module), function)(application["args"])
            gateway = built._bound_deployment
            replica = gateway.init_args[1]._bound_deployment
            assert {item["name"] for item in application["deployments"]} <= {gateway.name, replica.name}
            assert gateway.init_args[2].token_sha256 is not None
            scaling = application["args"]["scaling"]
            assert replica.ray_actor_options["num_gpus"] == scaling.get("num_gpus", 0)
            assert replica.ray_actor_options["num_cpus"] == scaling["num_cpus"]
            if scaling["min_replicas"] < scaling["max_replicas"]:
                limits = replica._deployment_config.autoscaling_config
                assert (limits.min_replicas, limits.max_replicas) == (scaling["min_replicas"], scaling["max_replicas"])


def test_the_builder_refuses_what_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    from tutor_service.errors import UserError
    from tutor_service.serve_config import build
    from tutor_service.serving.arguments import resolve

    with pytest.raises(UserError, match=r"unknown tutor 'lama'.*Did you mean 'llama'"):
        resolve({"tutor": "lama"})
    with pytest.raises(UserError, match="'replicas' = 2"):
        resolve({"tutor": "llama", "replicas": 2})
    with pytest.raises(UserError, match=r"scaling\.max_replica' = 2"):
        resolve({"tutor": "llama", "scaling": {"max_replica": 2}})
    monkeypatch.delenv("LLM_TUTORS_TOKEN", raising=False)
    with pytest.raises(UserError, match="'LLM_TUTORS_TOKEN' holds no bearer token"):
        build({"tutor": "llama", "token_env": "LLM_TUTORS_TOKEN"})


def test_a_serve_files_gpu_takes_no_cpu_unless_it_says_so() -> None:
    from tutor_service.serving.arguments import resolve

    on_gpu, _ = resolve({"tutor": "smollm2", "scaling": {"num_gpus": 1}})
    on_cpu, _ = resolve({"tutor": "smollm2"})
    assert (on_gpu.scaling.num_cpus, on_cpu.scaling.num_cpus) == (0, 1)


def test_the_papers_file_holds_exactly_the_single_files_applications() -> None:
    single = [load(DEPLOY / "serve" / f"{name}.yaml")["applications"][0] for name in ("llama", "vicuna", "deepseek")]
    assert load(DEPLOY / "serve" / "paper.yaml")["applications"] == single


class TestRayCluster:
    def test_is_valid_by_rays_own_cluster_schema(self) -> None:
        from ray.autoscaler._private.util import prepare_config, validate_config

        validate_config(prepare_config(load(DEPLOY / "ray" / "cluster.yaml")))

    def test_only_students_nodes_announce_cpus_so_that_students_land_there_alone(self) -> None:
        types = load(DEPLOY / "ray" / "cluster.yaml")["available_node_types"]
        assert {name: kind["resources"]["CPU"] > 0 for name, kind in types.items()} == {
            "head": False,
            "students": True,
            "tutors": False,
        }

    def test_the_dashboard_listens_on_loopback_and_the_token_is_asked_for(self) -> None:
        cluster = load(DEPLOY / "ray" / "cluster.yaml")
        assert "--dashboard-host=127.0.0.1" in " ".join(cluster["head_start_ray_commands"])
        options = cluster["docker"]["run_options"]
        assert "--env=RAY_AUTH_MODE=token" in options
        assert any(option.startswith("--env=RAY_AUTH_TOKEN_PATH=/home/ray/secrets/") for option in options)
        ports = [rule["FromPort"] for rule in cluster["provider"]["security_group"]["IpPermissions"]]
        assert ports == [22]


def test_gpu_nodes_of_the_cluster_file_name_an_image() -> None:
    kinds = load(DEPLOY / "ray" / "cluster.yaml")["available_node_types"]
    assert [name for name, kind in kinds.items() if kind["resources"].get("GPU")] == ["tutors"]
    assert kinds["tutors"]["node_config"]["ImageId"]


def test_secrets_can_be_read_by_a_containers_user_and_their_folder_entered_by_their_owner(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    subprocess.run([DEPLOY / "mlflow" / "secrets.sh", folder], check=True)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o444}


def test_no_secret_stands_in_any_file() -> None:
    """Names that end in token, password, secret or key carry no literal; Kubernetes gets them from a Secret."""

    def literals(node: Any, path: str) -> list[str]:
        if isinstance(node, dict):
            named = node.get("name")
            found = [path] if isinstance(named, str) and SECRET_NAME.search(named) and "value" in node else []
            for key, value in node.items():
                at = f"{path}.{key}"
                plain = isinstance(value, str | int) and not isinstance(value, bool)
                if SECRET_NAME.search(str(key)) and plain and key not in {"key"}:
                    found.append(at)
                found += literals(value, at)
            return found
        if isinstance(node, list):
            return [hit for index, value in enumerate(node) for hit in literals(value, f"{path}[{index}]")]
        return []

    for path in [*DEPLOY.rglob("*.yaml"), *DEPLOY.rglob("*.yml")]:
        for document in load_all(path):
            assert not literals(document, path.name)
        assert not re.search(r"://[^/\s]+:[^/\s]+@", path.read_text())


class TestDockerfile:
    path = DEPLOY / "docker" / "Dockerfile"

    def test_the_linter_has_nothing_to_say(self) -> None:
        result = subprocess.run([BIN / "hadolint", "--no-color", self.path], capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr

    def test_every_target_ends_as_a_user_with_a_number(self) -> None:
        targets = re.split(r"(?m)^FROM ", self.path.read_text())[1:]
        names = [re.search(r" AS (\w+)", target).group(1) for target in targets]  # type: ignore[union-attr]
        assert names == ["base", "cpu", "gpu", "mlflow"]
        for name, target in zip(names, targets, strict=True):
            if name != "base":
                assert re.findall(r"(?m)^USER (.*)$", target)[-1:] == ["1000:1000"], name

    def test_bounds_of_rays_memory_are_settings_of_the_installed_ray(self) -> None:
        """A misspelt one would be ignored."""
        import ray

        from tests.integration.cluster.drill import RAY_MEMORY

        server = (Path(ray.__file__).parent / "core" / "src" / "ray" / "gcs" / "gcs_server").read_bytes()
        bounds = re.findall(r"RAY_([a-z]\w+)=", self.path.read_text())
        assert set(bounds) <= {name.removeprefix("RAY_") for name in RAY_MEMORY}
        for name in RAY_MEMORY:
            assert not name.startswith("RAY_") or name.removeprefix("RAY_").encode() in server, name

    def test_every_install_is_held_to_the_constraints(self) -> None:
        text = self.path.read_text().replace("\\\n", " ")
        installs = [line for line in text.splitlines() if re.search(r"pip install", line) and "--no-deps" not in line]
        assert installs and all("constraints.txt" in line for line in installs)

    def test_what_is_copied_is_let_through_by_the_ignore_file(self) -> None:
        allowed = {
            line[1:]
            for line in (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
            if line[:1] == "!"
        }
        sources = {
            source
            for line in self.path.read_text().splitlines()
            if line.startswith("COPY ")
            for source in line.split()[1:-1]
        }
        assert sources == allowed
        assert all((ROOT / source).exists() for source in sources)


def test_scripts_pass_the_shell_linter() -> None:
    scripts = sorted([*DEPLOY.rglob("*.sh"), *DEPLOY.rglob("*.sbatch")])
    result = subprocess.run([BIN / "shellcheck", *scripts], capture_output=True, text=True)
    assert scripts and result.returncode == 0, result.stdout


class TestMlflow:
    def test_compose_file_is_valid_and_publishes_on_loopback_alone(self) -> None:
        import compose_spec

        path = DEPLOY / "mlflow" / "compose.yaml"
        compose_spec.PyCompose.from_yaml(path.read_text())
        services = load(path)["services"]
        published = [port for service in services.values() for port in service.get("ports", [])]
        assert published == ["127.0.0.1:5000:5000"]
        assert services["mlflow"]["user"] == "1000:1000"
        assert services["mlflow"]["cap_drop"] == ["ALL"] and services["mlflow"]["read_only"] is True

    def test_settings_are_ones_that_the_installed_mlflow_reads(self) -> None:
        """Names of environment variables, against MLflow's own sources."""
        import importlib.util

        package = Path(importlib.util.find_spec("mlflow").origin).parent  # type: ignore[union-attr,arg-type]
        sources = [
            package / "environment_variables.py",
            package / "cli" / "__init__.py",
            package / "utils" / "cli_args.py",
        ]
        known = set(re.findall(r"\bMLFLOW_[A-Z_]+\b", "".join(source.read_text() for source in sources)))
        script = (DEPLOY / "mlflow" / "server.sh").read_text()
        used = set(re.findall(r"\bMLFLOW_[A-Z_]+\b", script)) - {"MLFLOW_SECRETS", "MLFLOW_STATE"}
        assert used and used <= known

    def test_authentication_file_is_one_that_mlflow_can_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import configparser

        parser = configparser.ConfigParser()
        parser.read(DEPLOY / "mlflow" / "basic_auth.ini")
        assert "admin_password" not in parser["mlflow"]
        assert parser["mlflow"]["database_uri"].startswith("postgresql://mlflow@")
        assert parser["mlflow"].getint("auth_cache_ttl_seconds") > 0


class TestObservability:
    def dashboard(self) -> dict[str, Any]:
        return json.loads((DEPLOY / "observability" / "grafana-dashboard.json").read_text())

    def queries(self) -> list[str]:
        return [target["expr"] for panel in self.dashboard()["panels"] for target in panel.get("targets", [])]

    def selectors(self) -> list[Any]:
        """Every series that a query reads, parsed by a PromQL parser."""
        import promql_parser

        found: list[Any] = []

        def visit(node: Any) -> None:
            if isinstance(node, promql_parser.VectorSelector):
                found.append(node)
            for name in ("expr", "lhs", "rhs", "vector_selector"):
                child = getattr(node, name, None)
                if child is not None:
                    visit(child)
            for child in getattr(node, "args", None) or []:
                visit(child)

        for query in self.queries():
            visit(
                promql_parser.parse(
                    query.replace("$__rate_interval", "5m").replace("$tutor", ".+").replace("$trial_actor", ".+")
                )
            )
        return found

    def test_every_query_parses_and_reads_series_that_exist(self) -> None:
        import importlib.util

        from tutor_service.gateway.metrics import GatewayMetrics

        ours = {sample.name for family in GatewayMetrics("t").registry.collect() for sample in family.samples} | {
            "tutor_advice_total",
            "tutor_errors_total",
        }
        panels = Path(importlib.util.find_spec("ray").origin).parent / "dashboard/modules/metrics/dashboards"  # type: ignore[union-attr,arg-type]
        rays = set(re.findall(r"\bray_\w+", "".join(path.read_text() for path in panels.glob("*_panels.py"))))
        names = {selector.name for selector in self.selectors()}
        assert len(names) > 10
        assert names <= ours | rays, names - ours - rays

    def test_panels_do_not_overlap_and_have_distinct_ids(self) -> None:
        panels = self.dashboard()["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            box = panel["gridPos"]
            cells = {(box["x"] + x, box["y"] + y) for x in range(box["w"]) for y in range(box["h"])}
            assert box["x"] + box["w"] <= 24 and not cells & taken
            taken |= cells

    def test_the_issues_signals_are_shown(self) -> None:
        titles = {panel["title"] for panel in self.dashboard()["panels"]}
        assert {"Advice rate", "Store hit rate", "Call latency", "Queue", "Misses", "Trials"} <= titles

    def test_prometheus_scrapes_each_paper_tutor_with_a_token_from_a_file(self) -> None:
        jobs = {job["job_name"]: job for job in load(DEPLOY / "observability" / "prometheus.yml")["scrape_configs"]}
        tutors = [application["args"]["tutor"] for application in load(DEPLOY / "serve" / "paper.yaml")["applications"]]
        assert jobs["tutors"]["static_configs"][0]["targets"] == tutors
        assert jobs["tutors"]["authorization"] == {"type": "Bearer", "credentials_file": "tutor_token"}
