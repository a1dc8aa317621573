"""PostgreSQL: server, migrations and one module per table."""
