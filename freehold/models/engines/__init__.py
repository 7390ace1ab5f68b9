"""Engines for this machine: built or found, held against the wheel, measured, tuned."""
