"""Several runners of one trial: what they know is merged, and what they spend never exceeds the advice budget."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.advising.explorer import Explorer
from rllib_plugins.advising.table import NOTHING
from rllib_plugins.sharing.explorer import SharedExplorer
from rllib_plugins.sharing.shares import HOLDER, Held, Place, share_out
from rllib_plugins.sharing.table_updates import news, together
from tests.unit.advising_fakes import TableAdvisor, states
from tutor_service.errors import UserError

NUM_STATES, NUM_ACTIONS = 6, 3
ROWS = np.random.default_rng(0).dirichlet(np.ones(NUM_ACTIONS), NUM_STATES)


def explorer(index: int, num_runners: int, **advice) -> SharedExplorer:
    config = AdviceConfig(**({"use": "coin", "trust": "fixed", "probability_final": 1.0} | advice))
    return SharedExplorer(
        config,
        place=Place(index, num_runners),
        seed=7,
        num_actions=NUM_ACTIONS,
        theta_steps=1_000,
        advisor=TableAdvisor(ROWS, keeps=True),
    )


class Trial:
    """Runners and their holder, with messages that can be lost and processes that can die."""

    def __init__(self, num_runners: int, **advice):
        self.num_runners, self.advice = num_runners, advice
        self.holder = explorer(HOLDER, num_runners, **advice)
        self.runners = {index: explorer(index, num_runners, **advice) for index in range(1, num_runners + 1)}
        self.spent = 0
        self.rng = np.random.default_rng(1)
        self.sync()

    def act(self, index: int, num_steps: int = 1, num_envs: int = 2):
        runner = self.runners[index]
        for _ in range(num_steps):
            policy = np.full((num_envs, NUM_ACTIONS), 1 / NUM_ACTIONS)
            decision = runner.act(
                states(*self.rng.integers(NUM_STATES, size=num_envs)), policy, step=runner.num_trial_steps
            )
            self.spent += int(decision.consulted.sum())

    def sync(self, unheard=(), unreached=(), *, is_whole=True):
        self.holder.merge([runner.report() for index, runner in self.runners.items() if index not in unheard])
        common = pickle.loads(pickle.dumps(self.holder.common(is_whole=is_whole)))
        for index, runner in self.runners.items():
            if index not in unreached:
                runner.hear(common)

    def replace(self, index: int):
        """Another process in the place of one that died: it is told what the holder knows."""
        self.runners[index] = explorer(index, self.num_runners, **self.advice)
        self.runners[index].hear(self.holder.common(is_whole=True)._replace(grants={}))


def test_one_runner_after_the_other_is_given_an_even_share():
    assert share_out(10, {i: Held(0, 0) for i in range(4)}) == {0: 3, 1: 3, 2: 3, 3: 1}
    assert share_out(1, {1: Held(0, 0), 2: Held(0, 0)}) == {1: 1, 2: 0}
    assert share_out(10, {}) == {}


def test_what_is_given_back_is_handed_out_once_it_is_known_to_be_back():
    first = share_out(20, {1: Held(10, 10), 2: Held(0, 10)})
    assert first == {1: 10, 2: 5}
    assert share_out(20, {1: Held(10, 10), 2: Held(0, 5)}) == {1: 15, 2: 5}


@given(
    budget=st.integers(0, 50),
    parts=st.dictionaries(st.integers(1, 5), st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=5),
    others=st.integers(0, 10),
)
def test_old_and_new_allowances_together_never_exceed_the_budget(budget, parts, others):
    held = {index: Held(spent, spent + left) for index, (spent, left) in parts.items()}
    if sum(part.allowance for part in held.values()) + others > budget:
        return
    allowances = share_out(budget, held, others)
    assert sum(max(held[index].allowance, allowances[index]) for index in held) + others <= budget
    assert all(allowances[index] >= part.spent for index, part in held.items())


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_budget_holds_whatever_is_lost(data):
    budget, num_runners = data.draw(st.integers(0, 60)), data.draw(st.integers(1, 4))
    trial = Trial(num_runners, advice_budget=budget)
    some = st.sets(st.integers(1, num_runners))
    for _ in range(data.draw(st.integers(1, 12))):
        for index in trial.runners:
            trial.act(index, data.draw(st.integers(0, 6)))
        for index in data.draw(some) if data.draw(st.booleans()) else ():
            trial.replace(index)
        trial.sync(data.draw(some), data.draw(some))
        assert trial.spent <= budget


def test_the_whole_budget_is_spent_even_if_one_runner_acts_alone():
    trial = Trial(4, advice_budget=40)
    for _ in range(30):
        trial.act(2, 4)
        trial.sync()
    assert 37 <= trial.spent <= 40  # the others keep an even share of what is left, one consultation each
    assert trial.holder.counters()["advice/consultations"] == trial.spent


def test_one_runner_s_process_is_followed_by_another_s():
    trial = Trial(2, advice_budget=100)
    trial.act(1, 5)
    trial.sync()
    before = trial.holder.counters()
    trial.replace(1)
    runner = trial.runners[1]
    assert runner.counters() == before and runner.num_trial_steps == 10
    trial.act(1, 3)
    assert trial.runners[1].counters() == before  # it may spend nothing until it has reported
    trial.sync()
    trial.act(1, 3)
    trial.sync()
    assert trial.holder.counters()["advice/consultations"] == trial.spent > before["advice/consultations"]


def test_steps_and_consultations_are_the_trial_s():
    trial = Trial(3)
    for index in trial.runners:
        trial.act(index, 4)
    runner = trial.runners[1]
    assert runner.num_trial_steps == 24 and runner.num_consultations == 3 * 8  # the others are taken to have done alike
    trial.act(2, 1)
    trial.sync()
    assert {r.num_trial_steps for r in (*trial.runners.values(), trial.holder)} == {26}
    assert {r.num_consultations for r in (*trial.runners.values(), trial.holder)} == {26}
    assert trial.holder.counters() == trial.runners[3].counters()


def test_runners_draw_their_own_numbers_and_the_same_again():
    def first(index):
        decision = explorer(index, 2).act(states(*[0] * 50), np.full((50, NUM_ACTIONS), 1 / 3), step=0)
        return decision.actions.tolist()

    assert first(1) == first(1) != first(2)


@pytest.mark.parametrize("is_whole", [True, False])
def test_what_one_runner_was_told_all_know(is_whole):
    trial = Trial(2, reuse="budget", reuse_options={"budget": 3})
    trial.runners[1].act(states(4), np.full((1, NUM_ACTIONS), 1 / 3), step=0)
    action = trial.runners[1]._stored.get_state()["actions"]
    trial.sync(is_whole=is_whole)
    for known in (trial.holder, *trial.runners.values()):
        stored = known._stored.get_state()
        assert stored["observations"].tolist() == [[4.0]] and stored["memories"].tolist() == [3.0]
        assert stored["actions"] == action
        np.testing.assert_allclose(known._advisor.table.look_up(states(4)), ROWS[[4]])
    decision = trial.runners[2].act(states(4), np.full((1, NUM_ACTIONS), 1 / 3), step=0)
    assert decision.actions == action and trial.runners[2].counters()["advice/reused"] == 1
    trial.sync(is_whole=is_whole)
    assert trial.runners[1]._stored.get_state()["memories"].tolist() == [2.0]


def table(entries):
    observations, actions, memories = zip(*entries, strict=True) if entries else ((), (), ())
    return {
        "observations": np.array(observations, np.float32).reshape(len(entries), 1),
        "actions": np.array(actions, np.int64),
        "memories": np.array(memories, np.float64),
    }


def entries(found):
    return [
        (row.tolist(), int(action), float(memory))
        for row, action, memory in zip(found["observations"], found["actions"], found["memories"], strict=True)
    ]


def test_of_several_entries_the_one_that_is_used_up_furthest_stays():
    parts = [
        table([([1.0], 0, 2.0), ([2.0], 0, 2.0)]),
        table([([1.0], 1, 1.0), ([2.0], NOTHING, np.nan), ([3.0], 2, 3.0)]),
        table([]),
    ]
    found = entries(together(parts))
    assert found[0] == ([1.0], 1, 1.0) and found[1][:2] == ([2.0], NOTHING) and found[2] == ([3.0], 2, 3.0)
    assert entries(together([parts[2], parts[2]])) == []


def test_news_are_what_is_new_or_changed():
    before = table([([1.0], 0, 2.0), ([2.0], NOTHING, np.nan)])
    after = table([([1.0], 0, 1.0), ([2.0], NOTHING, np.nan), ([3.0], 2, 3.0)])
    assert entries(news(before, after)) == [([1.0], 0, 1.0), ([3.0], 2, 3.0)]
    assert entries(news(before, before)) == []
    dropped = table([([2.0], 1, 1.0), ([3.0], 2, 3.0)])
    assert entries(news(before, dropped)) == entries(dropped)
    assert len(entries(news(table([]), after))) == 3


def test_trust_is_what_the_holder_says():
    trial = Trial(2, trust="earned")
    rng = np.random.default_rng(0)
    heads = rng.random(600) < 0.5
    trial.holder.observe(rng.normal(size=600) - 3.0 * heads, heads, np.ones(600, bool))
    trial.sync()
    assert trial.holder.gauges()["advice/trust"] < 0.1
    assert trial.runners[2].gauges()["advice/trust"] == trial.holder.gauges()["advice/trust"]


def test_a_restored_trial_goes_on_with_the_same_numbers_and_the_rest_of_the_budget():
    trial = Trial(2, advice_budget=30)
    for index in trial.runners:
        trial.act(index, 5)
    trial.sync()
    saved, spent = pickle.dumps(trial.holder.common(is_whole=True)), trial.spent
    other = Trial(2, advice_budget=30)
    other.holder.restore(pickle.loads(saved))
    other.sync()
    assert other.holder.counters() == trial.holder.counters()
    for index, runner in other.runners.items():
        assert runner.num_trial_steps == trial.runners[index].num_trial_steps
        observations, policy = states(*[1] * 20), np.full((20, NUM_ACTIONS), 1 / 3)
        mine, theirs = (r.act(observations, policy, step=20) for r in (runner, trial.runners[index]))
        np.testing.assert_array_equal(mine.actions, theirs.actions)
        other.spent += int(mine.consulted.sum())
    assert other.spent == 30 - spent
    with pytest.raises(UserError, match="num_env_runners=2"):
        explorer(HOLDER, 3).restore(pickle.loads(saved))


def test_one_process_goes_on_where_it_was():
    trial = Trial(2, advice_budget=30)
    trial.act(1, 4)
    state = pickle.loads(pickle.dumps(trial.runners[1].get_state()))
    other = explorer(1, 2, advice_budget=30)
    other.set_state(state)
    np.testing.assert_equal(other.get_state(), state)


def test_a_trial_of_one_process_draws_as_before():
    """``Explorer`` alone knows nothing of runners."""
    config = AdviceConfig(use="coin", trust="fixed")
    alone = Explorer(config, num_actions=3, theta_steps=100, advisor=TableAdvisor(ROWS), seed=7)
    assert not {"life", "tallies"} & alone.get_state().keys()
