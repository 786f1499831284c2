"""The names of the columns that tutoring adds to a batch of RLlib's, next to its own ``Columns``.

The connectors write them into episodes, and the learners read them.
"""

from __future__ import annotations

POLICY_LOGP = "policy_logp"
"""log π_old(a|s) of the executed action under the student's own policy when it acted; float32."""

BEHAVIOUR_LOGP = "behaviour_logp"
"""log μ(a|s) of the executed action under the behaviour policy, tutor included; float32."""

HEADS = "advice_heads"
"""True where the coin fell for the tutor and its advice was executed; bool."""

ELIGIBLE = "advice_eligible"
"""True where the coin was thrown between tutor and student, so that the step belongs to the randomised trial; bool."""

CONSULTED = "advice_consulted"
"""True where the student has the tutor's advice for the state; bool."""

ADVICE = "advice_probabilities"
"""The tutor's distribution over actions, zeros where there is none; float32, one entry per action."""

LEGAL = "legal_actions"
"""Mask of the actions that are legal in the state; bool, one entry per action."""
