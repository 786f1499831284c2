"""The lean rollout: vector environments stepped into preallocated arrays, and the networks that act on them."""
