"""The commands of ``tutor``, one module each. Each imports what is heavy inside its functions, after parsing."""
