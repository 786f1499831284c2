"""Host LLM tutors and answer requests for advice.

Owns prompts, decoding, the advice store, the Serve application and the client. It knows text and action labels; it
must not know what an environment, a student or a sweep is.
"""
