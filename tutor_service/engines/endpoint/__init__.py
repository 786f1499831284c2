"""Talk to somebody else's OpenAI-compatible endpoint: what it takes, what it answers, and what it may cost.

``reply``, ``logprobs``, ``names``, ``answer`` and ``reading`` are pure: they turn whatever a server sends into
probabilities, or say why not. ``probe`` finds out what the endpoint takes, ``limits`` holds it to a pace and a budget,
``retries`` sends requests within them, ``transport`` alone opens connections, and ``engine`` is what the service makes
of them. Nothing here knows Serve, the store or tasks.
"""
