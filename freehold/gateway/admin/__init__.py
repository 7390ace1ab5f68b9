"""Administration over HTTP: one file a noun, every route in ``routes.py``."""
