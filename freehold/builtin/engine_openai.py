"""``engine.openai``: any OpenAI-compatible URL, which somebody else runs.

vLLM, SGLang, another Freehold, a provider: there is nothing to start and nothing to stop.
"""

from pathlib import Path

from freehold.runtime.engine import Launch


class OpenAI:
    """A remote endpoint. Such servers notice a closed connection by themselves."""

    streams_only = False
    continues = None

    def command(
        self,
        launch: Launch,
        weights: Path,
        secret: str,
        ready: Path,
        adapters: tuple[Path, ...] = (),
        *,
        draft: Path | None = None,
    ) -> None:
        """Nothing to start."""

    def endpoint(self, url: str) -> str:
        """Return the URL as it was given, ``/v1`` included, without a slash at its end."""
        return url.rstrip("/")
