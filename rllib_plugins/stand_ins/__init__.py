"""Stand-ins for a tutor: who answers in its place, by what it has said already, so that its budget reaches further."""
