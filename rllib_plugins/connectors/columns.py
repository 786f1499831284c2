"""The names of the columns that tutoring adds to a batch of RLlib's, next to its own ``Columns``.

The connectors write them into episodes, and the learners read them.
"""

from __future__ import annotations

POLICY_LOGP = "policy_logp"
"""log π_old(a|s) of the executed action under the student's own policy when it acted; float32.

A diagnostic: learners read RLlib's ``action_logp``, which holds the same."""

BEHAVIOUR_LOGP = "behaviour_logp"
"""log μ(a|s) of the executed action under the behaviour policy, tutor included; float32."""

ELIGIBLE = "advice_eligible"
"""True where the coin was thrown between tutor and student, so that the step is part of the comparison; bool.

A diagnostic: no learner reads it."""

CONSULTED = "advice_consulted"
"""True where the tutor's advice was executed: the coin showed heads, and advice was had; bool."""

ADVICE = "advice_probabilities"
"""What is imitated: the advised action, one-hot, or the tutor's distribution under ``imitation: all`` where the advice
was drawn afresh; zeros where no advice was executed; float32, one entry per action."""

LEGAL = "legal_actions"
"""Mask of the actions that are legal in the state; bool, one entry per action."""
