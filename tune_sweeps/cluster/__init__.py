"""Reach Ray, here or elsewhere: local sessions, tutors for one command, and sweeps submitted as jobs."""
