"""Freehold: own your AI outright."""

__version__ = "0.1.0"
