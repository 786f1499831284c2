"""Proximal Policy Optimization that can be tutored. See README.md."""
