"""Programs that other people wrote, against a running Freehold: ``make clients``."""
