"""What evaluates prompts: vLLM in this process tree, or an endpoint elsewhere. Knows nothing of Serve or the store."""
