"""Turn advice requests into what a tutor reads: labels, templates and layout. Knows no engine and no transport."""
