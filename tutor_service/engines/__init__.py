"""Evaluate prompts by vLLM in this process tree, or by an endpoint elsewhere. Knows nothing of Serve or the store."""
