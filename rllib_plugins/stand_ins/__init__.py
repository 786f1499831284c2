"""Answer in a tutor's place, by what it has said already, so that its advice budget reaches further."""
