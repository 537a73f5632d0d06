"""What was found of a model as it is served, and why a run was started."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0003", "0002"


def upgrade() -> None:
    """Add a column and a table."""
    op.add_column("runs", sa.Column("why", sa.Text))
    op.create_table(
        "looks",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.String(64), nullable=False, index=True),
        sa.Column("release", sa.Integer),
        sa.Column("at", sa.String(40), nullable=False),
        sa.Column("found", sa.JSON, nullable=False),
    )
