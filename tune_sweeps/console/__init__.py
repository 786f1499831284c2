"""Own what this process does with its terminal, its log lines and the signals that end it."""
