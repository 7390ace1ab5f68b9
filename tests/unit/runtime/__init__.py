"""See the names of the files."""
