"""Schema changes, in order, run by alembic."""
