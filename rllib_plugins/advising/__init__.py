"""Advising: when a student asks its tutor, what it does with the answer, and what the answer turns out to be worth.

Owns P(τ), reuse, the behaviour policy and earned trust. It must not know Ray, torch, or how a tutor computes advice:
it sees a tutor through ``advisor.Advisor`` only.
"""
