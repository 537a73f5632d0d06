"""What is served beside what is wished: servers and their events; canaries; what a rollback took the place of."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"


def upgrade() -> None:
    """Add two columns and two tables."""
    op.add_column("releases", sa.Column("canary", sa.JSON))
    op.add_column("events", sa.Column("instead", sa.Integer))
    op.create_table(
        "served",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.String(64), nullable=False, index=True),
        sa.Column("server", sa.String(200), nullable=False),
        sa.Column("release", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", sa.String(40), nullable=False),
    )
    op.create_table(
        "servers",
        sa.Column("model", sa.String(64), primary_key=True),
        sa.Column("server", sa.String(200), primary_key=True),
        sa.Column("release", sa.Integer),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("seen", sa.Integer, nullable=False),
    )
