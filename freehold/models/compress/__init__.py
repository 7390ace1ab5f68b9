"""Compression with proof: measure, search, build, judge."""
