"""The ledger: its database, the releases in it, and their packages."""
