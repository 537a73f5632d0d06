"""The `evergreen` command: its verbs, and how a terminal shows what they return."""
