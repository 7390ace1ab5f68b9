"""Composition roots: every part is put together here, and nowhere else."""
