"""Blackjack in numbers: what can follow each decision of gymnasium's ``Blackjack-v1`` (``natural=False, sab=False``).

Owns the 280 decision states and their exact odds over an infinite deck, and the dynamic programming over them. The
player may hold a hard sum of 4 to 21, or a soft one (a usable ace counted as 11) of 12 to 21; the dealer shows 1 (an
ace) to 10, and draws to 17 or more, standing on soft 17.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

CARD_PROBABILITIES = np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, 4]) / 13
"""Probability of drawing the values 1 to 10; the jack, queen and king count 10."""

STICK, HIT = 0, 1

HANDS: tuple[tuple[int, int], ...] = (
    *((total, 0) for total in range(21, 10, -1)),
    *((total, 1) for total in range(21, 11, -1)),
    *((total, 0) for total in range(10, 3, -1)),
)
"""(sum, usable ace) of the 28 hands, ordered so that every hand comes after all that a drawn card can make of it."""

DEALER_CARDS = np.arange(1, 11)
NUM_STATES = len(HANDS) * len(DEALER_CARDS)


def draw(total: int, usable_ace: int, card: int) -> tuple[int, int]:
    """Return the hand after drawing ``card``; a sum above 21 is a bust."""
    if card == 1 and not usable_ace and total + 11 <= 21:
        return total + 11, 1
    total += card
    if usable_ace and total > 21:
        return total - 10, 0
    return total, usable_ace


def states() -> NDArray[np.int64]:
    """Return ``HANDS`` × ``DEALER_CARDS`` as rows (sum, dealer's card, usable ace), ``(280, 3)``."""
    return np.array([(total, card, ace) for total, ace in HANDS for card in DEALER_CARDS], dtype=np.int64)


@cache
def hit_transitions() -> NDArray[np.float64]:
    """Return the probability that a hit turns hand i into hand j, ``(28, 28)``; the rest of a row is that of a bust."""
    index = {hand: i for i, hand in enumerate(HANDS)}
    transitions = np.zeros((len(HANDS), len(HANDS)))
    for i, (total, ace) in enumerate(HANDS):
        for card, probability in enumerate(CARD_PROBABILITIES, start=1):
            after = draw(total, ace, card)
            if after[0] <= 21:
                transitions[i, index[after]] += probability
    return transitions


@cache
def _dealer_from(total: int, usable_ace: int) -> NDArray[np.float64]:
    """Return the distribution of the dealer's final score from a hand: (17, 18, 19, 20, 21, bust)."""
    outcome = np.zeros(6)
    if total >= 17:
        outcome[total - 17 if total <= 21 else 5] = 1.0
        return outcome
    for card, probability in enumerate(CARD_PROBABILITIES.tolist(), start=1):
        outcome += probability * _dealer_from(*draw(total, usable_ace, card))
    return outcome


@cache
def dealer_scores() -> NDArray[np.float64]:
    """Return the distribution of the dealer's final score (17 … 21, bust) for each card shown (1 … 10), ``(10, 6)``."""
    return np.array([_dealer_from(*draw(0, 0, int(card))) for card in DEALER_CARDS])


@cache
def stick_outcomes() -> NDArray[np.float64]:
    """Return how probably sticking wins and loses, by own sum (0 … 21) and dealer's card (1 … 10): ``(2, 22, 10)``."""
    scores = dealer_scores()
    final = np.arange(17, 22)
    outcomes = np.zeros((2, 22, 10))
    for total in range(22):
        outcomes[0, total] = scores[:, :5][:, final < total].sum(axis=1) + scores[:, 5]
        outcomes[1, total] = scores[:, :5][:, final > total].sum(axis=1)
    return outcomes


@cache
def start_probabilities() -> NDArray[np.float64]:
    """Return the probability of each decision state at the start of an episode, ``(28, 10)``."""
    index = {hand: i for i, hand in enumerate(HANDS)}
    hands = np.zeros(len(HANDS))
    for first, p_first in enumerate(CARD_PROBABILITIES, start=1):
        for second, p_second in enumerate(CARD_PROBABILITIES, start=1):
            hands[index[draw(*draw(0, 0, first), second)]] += p_first * p_second
    return hands[:, None] * CARD_PROBABILITIES


@cache
def optimal_action_values() -> NDArray[np.float64]:
    """Return Q*(state, action), ``(28, 10, 2)``, by backward induction over ``HANDS``."""
    win, lose = _stick_by_hand()
    transitions = hit_transitions()
    values = np.zeros((len(HANDS), 10))
    action_values = np.zeros((len(HANDS), 10, 2))
    for i in range(len(HANDS)):
        bust = 1.0 - transitions[i].sum()
        action_values[i, :, STICK] = win[i] - lose[i]
        action_values[i, :, HIT] = transitions[i] @ values - bust
        values[i] = action_values[i].max(axis=1)
    return action_values


def policy_return(hit_probabilities: NDArray[np.float64]) -> tuple[float, float]:
    """Return the exact mean and standard deviation of the episode return of a policy.

    Args:
        hit_probabilities: Probability to hit in each decision state, ``(28, 10)``.
    """
    win, lose = _stick_by_hand()
    transitions = hit_transitions()
    mean = np.zeros((len(HANDS), 10))
    square = np.zeros((len(HANDS), 10))
    for i in range(len(HANDS)):
        hit = hit_probabilities[i]
        bust = 1.0 - transitions[i].sum()
        mean[i] = (1 - hit) * (win[i] - lose[i]) + hit * (transitions[i] @ mean - bust)
        square[i] = (1 - hit) * (win[i] + lose[i]) + hit * (transitions[i] @ square + bust)
    start = start_probabilities()
    expected = float((start * mean).sum())
    return expected, float(np.sqrt(max(0.0, (start * square).sum() - expected**2)))


@cache
def _stick_by_hand() -> NDArray[np.float64]:
    return stick_outcomes()[:, [total for total, _ in HANDS], :]
