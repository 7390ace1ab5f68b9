"""Engines: started, watched, placed, re-adopted."""
