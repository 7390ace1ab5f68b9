"""Adapters that come with Freehold, through the same door as anybody's plugin."""
