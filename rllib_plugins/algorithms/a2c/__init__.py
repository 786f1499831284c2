"""Advantage Actor-Critic that can be tutored. See README.md."""
