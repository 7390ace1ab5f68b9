"""``python -m freehold`` is ``freehold``."""

from freehold.cli.main import main

main()
