"""The sbatch file starts Ray on its allocation, runs the sweep, and queues itself again when its time is up.

Slurm, Ray and `tutor` are stand-ins that write down how they were called.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import typer

SBATCH = Path(__file__).parents[2] / "deploy" / "slurm" / "sweep.sbatch"
NODES = {"one": 1, "one\ntwo\nthree": 3}

STAND_INS = {
    "srun": 'echo "srun $*" >>"$CALLS"; exec sleep 60',
    "scontrol": 'echo "scontrol $*" >>"$CALLS"; [ "$1" = requeue ] || printf "%b\\n" "$NODES"',
    "hostname": "echo 10.0.0.7 fd00::7",
    "python": 'grep -c "^srun" "$CALLS" | sed "s/2/$ALL/"',  # the second step brings all other nodes
    "tutor": 'echo "tutor $*" >>"$CALLS"; echo "token $(wc -c <"$RAY_AUTH_TOKEN_PATH") $RAY_AUTH_MODE" >>"$CALLS"; '
    'trap \'exit "$AT_TERM"\' TERM; for _ in $(seq "$SLEEP"); do sleep 0.1; done; exit "$STATUS"',
}


class Job:
    """A run of the file with stand-ins in place of the programs that it calls."""

    def __init__(
        self, folder: Path, nodes: str, *arguments: str, tenths: int = 0, status: int = 0, at_term: int = 130
    ) -> None:
        self.folder = folder
        programs = folder / ".venv" / "bin"
        programs.mkdir(parents=True)
        for name, text in STAND_INS.items():
            (programs / name).write_text(f"#!/bin/bash\n{text}\n")
            (programs / name).chmod(0o755)
        self.calls = folder / "calls"
        self.calls.touch()
        environ = {
            "CALLS": str(self.calls),
            "NODES": nodes.replace("\n", "\\n"),
            "ALL": str(NODES[nodes]),
            "SLEEP": str(tenths),
            "STATUS": str(status),
            "AT_TERM": str(at_term),
            "SLURM_SUBMIT_DIR": str(folder),
            "SLURM_JOB_ID": "123456",
            "SLURM_JOB_NODELIST": "nodes[1-3]",
            "SLURM_CPUS_PER_TASK": "16",
        }
        self.process = subprocess.Popen(["bash", SBATCH, *arguments], env=os.environ | environ)

    def lines(self) -> list[str]:
        return self.calls.read_text().splitlines()

    def wait_for(self, beginning: str) -> None:
        deadline = time.monotonic() + 60
        while not any(line.startswith(beginning) for line in self.lines()):
            assert time.monotonic() < deadline, self.lines()
            time.sleep(0.05)


@pytest.mark.parametrize("nodes", NODES)
def test_ray_is_started_on_every_node_and_the_sweep_is_run_there(nodes: str, tmp_path: Path) -> None:
    job = Job(tmp_path, nodes, "grid54", "--set", "seeds=5 6")
    assert job.process.wait(60) == 0
    known, head, *others, sweep, token = job.lines()
    assert known == "scontrol show hostnames nodes[1-3]"
    assert head == (
        "srun --ntasks-per-node=1 --cpus-per-task=16 --nodes=1 --ntasks=1 --nodelist=one ray start --head --block "
        "--node-ip-address=10.0.0.7 --port=23456 --num-cpus=16 --include-dashboard=false --temp-dir=/tmp/ray-123456 "
        '--resources={"advice_store": 1}'
    )
    workers = (
        "srun --ntasks-per-node=1 --cpus-per-task=16 --nodes=2 --ntasks=2 --exclude=one ray start --block "
        "--address=10.0.0.7:23456 --num-cpus=16"
    )
    assert others == ([workers] if NODES[nodes] > 1 else [])
    assert sweep == f"tutor sweep grid54 --set seeds=5 6 --address 10.0.0.7:23456 --results {tmp_path}/runs"
    assert token == "token 64 token"
    assert not list((tmp_path / "runs").glob(".ray-token-*"))  # it ends with the job


def test_a_job_whose_time_is_up_stops_the_sweep_and_queues_itself_again(tmp_path: Path) -> None:
    job = Job(tmp_path, "one", "grid54", tenths=600)
    job.wait_for("token")
    job.process.send_signal(signal.SIGUSR1)
    assert job.process.wait(30) == 130
    assert job.lines()[-1] == "scontrol requeue 123456"


def test_a_sweep_that_is_finished_when_the_time_is_up_is_not_queued_again(tmp_path: Path) -> None:
    job = Job(tmp_path, "one", "demo", tenths=600, at_term=0)
    job.wait_for("token")
    job.process.send_signal(signal.SIGUSR1)
    assert job.process.wait(30) == 0
    assert not any("requeue" in line for line in job.lines())


def test_a_job_that_is_cancelled_stops_the_sweep_and_is_not_queued_again(tmp_path: Path) -> None:
    job = Job(tmp_path, "one", "grid54", tenths=600)
    job.wait_for("token")
    job.process.terminate()
    assert job.process.wait(30) == 130
    assert not any("requeue" in line for line in job.lines())


def test_a_sweep_that_fails_is_a_job_that_fails(tmp_path: Path) -> None:
    assert Job(tmp_path, "one", "grid54", status=1).process.wait(60) == 1


def test_the_commands_are_ones_that_exist() -> None:
    import ray.scripts.scripts as scripts

    from tune_sweeps.cli.app import app

    start = {option for parameter in scripts.start.params for option in parameter.opts}
    sweep = typer.main.get_command(app).commands["sweep"]  # type: ignore[attr-defined]
    named = {option for parameter in sweep.params for option in parameter.opts}
    assert {"--address", "--results"} <= named
    used = {"--head", "--block", "--node-ip-address", "--port", "--num-cpus", "--include-dashboard", "--temp-dir"}
    assert used | {"--resources", "--address"} <= start
