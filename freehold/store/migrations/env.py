"""Alembic's entry: one transaction around all migrations, so a kill leaves the old schema."""

from alembic import context
from sqlalchemy import create_engine

from freehold.store.tables import METADATA

ENGINE = create_engine(context.config.attributes["url"])
with ENGINE.connect() as connection:
    context.configure(connection=connection, target_metadata=METADATA, render_as_batch=True)
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
ENGINE.dispose()
