"""A bounded time of chaos: everything runs, everything is killed, and at the end the books are checked."""
