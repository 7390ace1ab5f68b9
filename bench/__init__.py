"""Figures: ours beside the peers', run by ``make bench``, written to ``RESULTS.md``."""
