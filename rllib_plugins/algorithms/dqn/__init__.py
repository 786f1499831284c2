"""Deep Q-Network that can be tutored. See README.md."""
