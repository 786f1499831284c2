"""The students: DQN, PPO and A2C on RLlib's new API stack, with the same files in each folder."""
