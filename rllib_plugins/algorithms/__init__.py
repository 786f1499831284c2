"""The students: DQN, PPO and A2C on RLlib's new API stack, with the same files in each folder.

Owns losses, updates and their configs. Must not know how tutors answer or how trials are scheduled.
"""
