"""What is kept: rows in a database, bytes by digest, and the published snapshot."""
