"""One spelling for what is an outcome of a run and a state of a release, and the word of the command for another."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0004", "0003"


def upgrade() -> None:
    """Rename two kinds of events."""
    events = sa.table("events", sa.column("kind", sa.String))
    for before, now in (("awaiting approval", "awaiting-approval"), ("withdrawn", "retired")):
        op.execute(sa.update(events).where(events.c.kind == before).values(kind=now))
