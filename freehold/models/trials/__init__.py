"""Small test sets of our own, one a task."""
