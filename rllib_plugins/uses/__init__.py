"""Uses of advice: what a student makes in learning of what its tutor says, one module each."""
