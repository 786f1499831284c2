"""Replicas are placed on nodes as a scheduler would: everything that one takes has to be on one node."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutor_service.config import ScalingConfig, TutorConfig
from tutor_service.serving.placement import Replica, describe, misfit, replica_needs, unplaceable

STUDENTS, TUTORS = {"CPU": 32.0}, {"GPU": 1.0, "accelerator_type:A100": 1.0}


def tutor(name: str = "llama", **scaling: float | str) -> TutorConfig:
    return TutorConfig.model_validate({"name": name, "model": "m", "scaling": scaling})


def test_a_gpu_tutor_takes_no_cpu_unless_told_to() -> None:
    assert replica_needs(ScalingConfig(num_gpus=1)) == {"GPU": 1}
    assert replica_needs(ScalingConfig()) == {"CPU": 1}
    assert replica_needs(ScalingConfig(num_gpus=1, num_cpus=2)) == {"CPU": 2, "GPU": 1}


def test_gpu_nodes_that_announce_no_cpus_take_a_gpu_tutor() -> None:
    assert misfit([tutor(num_gpus=1)], [STUDENTS, TUTORS]) is None


def test_a_cpu_here_and_a_gpu_there_are_no_place() -> None:
    said = misfit([tutor(num_gpus=1, num_cpus=1)], [STUDENTS, TUTORS])
    assert said is not None
    assert "'llama' needs 1 GPU and 1 CPU on one node" in said
    assert "Set scaling.num_cpus: 0" in said


def test_the_kind_of_gpu_counts() -> None:
    assert misfit([tutor(num_gpus=1, accelerator_type="A100")], [TUTORS]) is None
    said = misfit([tutor(num_gpus=1, accelerator_type="T4")], [TUTORS])
    assert said is not None and "needs 1 GPU (T4)" in said and "have: 1 GPU (A100)" in said


def test_small_replicas_leave_the_large_place_to_the_large_one() -> None:
    tutors = [tutor("small", num_gpus=1), tutor("large", num_gpus=2)]
    assert misfit(tutors, [{"GPU": 2.0}, {"GPU": 1.0}]) is None


NEEDS = st.fixed_dictionaries({"CPU": st.integers(0, 3), "GPU": st.integers(0, 2)})


@given(st.lists(NEEDS, min_size=1, max_size=6))
def test_a_node_of_its_own_for_each_is_always_enough_and_none_is_never(needs: list[dict[str, int]]) -> None:
    replicas = [Replica(str(i), {k: float(v) for k, v in need.items() if v}) for i, need in enumerate(needs)]
    assert unplaceable(replicas, [replica.needs for replica in replicas]) is None
    if any(replica.needs for replica in replicas):
        assert unplaceable(replicas, []) is not None


@pytest.mark.parametrize(("resources", "said"), [({"CPU": 1.0}, "1 CPU"), ({}, "nothing"), ({"GPU": 0.5}, "0.5 GPUs")])
def test_resources_are_named_for_a_person(resources: dict[str, float], said: str) -> None:
    assert describe(resources) == said
