"""Answer requests for one tutor: from memory, from the store, or by its model, once. Knows neither Serve nor vLLM."""
