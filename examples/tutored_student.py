"""A tutored student, start to end: ask a tutor, train with it and without, and compare.

Purpose: the whole of what a sweep does for one pair of trials, in one file to read and change.
How to run: ``python -m examples.tutored_student`` (about half a minute; ``--tutor qwen2.5-coder-1.5b`` asks a real LLM,
    which is fetched on first use and deployed on a local Ray).
How to debug: ``tutor ask TUTOR TASK`` shows one question, its prompt and its answer.
What to expect: the tutored student's greedy return rises after fewer env steps than the other's.
"""

from __future__ import annotations

import argparse

from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.config import StudentConfig
from rllib_plugins.metrics import STEP_AXIS
from rllib_plugins.tasks import load_task
from rllib_plugins.trial import train
from tune_sweeps.cluster.tutors import tutors_up
from tutor_service.tutor_files import load_tutor


def main(tutor_name: str, task_name: str, num_env_steps: int, seed: int) -> dict[str, list[float]]:
    """Train two students of one seed, one of them tutored.

    Returns:
        Greedy returns, tutor off, by ``untutored`` and ``tutored``; one per evaluation.
    """
    # 1. The task: an environment with the words a tutor needs. The student sees numbers, the tutor the same in words.
    task = load_task(task_name)
    observation, _ = task.make_raw().reset(seed=seed)
    print(
        f"{task.name}: {task.rules}\n\nfor example: {task.describe(observation)}  →  one of {', '.join(task.actions)}\n"
    )

    # 2. The students. What a tutored student does with advice is `AdviceConfig`; its defaults hold for every tutor.
    untutored = StudentConfig(
        algorithm="ppo",
        task=task_name,
        num_env_steps=num_env_steps,
        eval_interval_steps=num_env_steps // 10,
        seed=seed,
    )
    tutored = untutored.model_copy(update={"tutor": tutor_name, "advice": AdviceConfig()})

    # 3. Training. A scripted tutor answers in this process; an LLM is deployed for the time of the block.
    with tutors_up([load_tutor(tutor_name)], print, spare_cpus=1):
        results = {"untutored": train(untutored), "tutored": train(tutored)}

    # 4. The comparison: evaluated greedily with the tutor off, on the same episodes for both.
    print(f"{'env steps':>10} {'untutored':>10} {'tutored':>10} {'consultations':>14}")
    for alone, helped in zip(results["untutored"], results["tutored"], strict=True):
        print(
            f"{helped[STEP_AXIS]:>10,} {alone['eval/return_mean']:>10.3f} {helped['eval/return_mean']:>10.3f} "
            f"{helped['advice/consultations']:>14,.0f}"
        )
    return {name: [result["eval/return_mean"] for result in trial] for name, trial in results.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tutor", default="oracle", help="tutor by name or file (default: oracle, the task's best player)"
    )
    parser.add_argument("--task", default="blackjack", help="task by name or module:object (default: blackjack)")
    parser.add_argument("--num-env-steps", type=int, default=10_000, help="env steps per student (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: 0)")
    args = parser.parse_args()
    main(args.tutor, args.task, args.num_env_steps, args.seed)
