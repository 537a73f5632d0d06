"""Runs migrations on the connection that `bentos.ledger.database` has open, within its transaction."""

from alembic import context

from bentos.ledger.database import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
