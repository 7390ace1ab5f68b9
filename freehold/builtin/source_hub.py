"""``source.hub``: the Hugging Face Hub, through its own client library."""

import fnmatch
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from freehold.builtin.hub_file import by_ranges
from freehold.errors import Forbidden, Invalid, Missing, Unavailable
from freehold.models.licence import together
from freehold.models.scan.kind import kind_of
from freehold.models.source import CARD, SIGNATURE, Fetched, Origin, Progress, read_beside
from freehold.secret import resolve_secret
from freehold.settings import Sources

_FORM = re.compile(
    r"(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<file>[^@]+))?(?:@(?P<revision>[\w./-]+))?", re.ASCII
)
NEEDED = frozenset({"safetensors", "json", "template", "text", "sentencepiece"})
"""Kinds of files that a model in safetensors has: what could run anything is not even fetched."""
MOST_FILES = 1000
PREFERRED = ("*q4_k_m*", "*q5_k_m*", "*q8_0*")


class Hub:
    """Reads ``hf:ORG/REPO[/FILE][@REVISION]``; downloads resume, the revision is pinned.

    ``HF_HUB_OFFLINE``, proxies and caches are the library's and work as its users expect.
    """

    def __init__(self, settings: Sources) -> None:
        self._settings = settings

    def claims(self, text: str) -> Origin | None:
        """Claim ``hf:...``."""
        if not text.startswith("hf:"):
            return None
        return Origin(source="hub", location=text.removeprefix("hf:"))

    def fetch(self, origin: Origin, scratch: Path, progress: Progress) -> Fetched:
        """Download one file of a repository, or a model in several, at one commit."""
        # Imported here: an idle server must not pay for it.
        from huggingface_hub import HfApi, constants

        form = _FORM.fullmatch(origin.location)
        if form is None:
            raise Invalid(
                "invalid.source", f"{origin.location!r:.120} is not ORG/REPO[/FILE][@REVISION]"
            )
        if constants.HF_HUB_OFFLINE:
            raise Unavailable(
                "unavailable.offline", "HF_HUB_OFFLINE is set: unset it, or use another source"
            )
        token = resolve_secret(self._settings.hub_token) if self._settings.hub_token else None
        api = HfApi(endpoint=self._settings.hub_endpoint or None, token=token)
        repo = form["repo"]
        with _explained(repo):
            info = api.model_info(repo, revision=form["revision"], timeout=self._settings.timeout)
            names = [each.rfilename for each in info.siblings or []]
            wanted = [form["file"]] if form["file"] else _choose(repo, names)
            for file in wanted:
                if file not in names:
                    raise Missing("missing.source", f"{repo} has no file {file!r:.120}")
                _check_file(repo, file)
            found = {
                file: by_ranges(
                    api,
                    self._settings,
                    (repo, file, str(info.sha)),
                    scratch,
                    partial(progress, "fetch"),
                )
                or Path(
                    api.hf_hub_download(
                        repo,
                        file,
                        revision=info.sha,
                        local_dir=scratch / "hub",
                        tqdm_class=_reporter(progress),
                    )
                )
                for file in wanted
            }
            for name in (CARD, SIGNATURE):
                if name in names:
                    api.hf_hub_download(repo, name, revision=info.sha, local_dir=scratch / "hub")
        card: Any = info.card_data or {}
        text = read_beside(scratch / "hub", CARD)
        only = wanted[0] if len(wanted) == 1 else ""
        return Fetched(
            name=Path(only or repo).name.removesuffix(".gguf"),
            files={"model.gguf": found[only]} if only else found,
            resolved=f"hf:{repo}{'/' if only else ''}{only}@{info.sha}",
            moved=True,
            licence=together(card.get("license_name"), card.get("license")),
            card=text.decode("utf-8", "replace") if text else None,
            signature=read_beside(scratch / "hub", SIGNATURE),
        )


def _check_file(repo: str, file: str) -> None:
    """Refuse a name that would lie elsewhere than in scratch: whoever serves it means harm."""
    parts = file.split("/")
    odd = not file.isprintable() or "\\" in file or ":" in file or len(file) > 500
    if odd or any(part in ("", ".", "..") for part in parts):
        raise Invalid(
            "invalid.source",
            f"{repo} lists a file {file!r:.120}, which is no name for one: nothing was fetched",
            param="source",
        )


def _choose(repo: str, names: list[str]) -> list[str]:
    """Return the GGUF file that is meant; where there is none, all that safetensors need."""
    models = [name for name in names if name.lower().endswith(".gguf")]
    if len(models) == 1:
        return models
    for pattern in PREFERRED:
        found = [name for name in models if fnmatch.fnmatch(name.lower(), pattern)]
        if len(found) == 1:
            return found
    if not models and any(name.endswith(".safetensors") for name in names):
        needed = [name for name in names if kind_of(name, b"")[0] in NEEDED and name[0] != "."]
        if len(needed) <= MOST_FILES:
            return sorted(needed)
    listed = ", ".join(models[:20]) or "no .gguf file and no safetensors"
    raise Invalid("invalid.source", f"{repo} holds {listed}: name one, as hf:{repo}/FILE")


def _reporter(progress: Progress) -> Any:
    from tqdm import tqdm

    class Reporter(tqdm):  # type: ignore[type-arg]
        """A progress bar that draws nothing and tells us."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": False, "file": _Nowhere()})

        def update(self, n: float | None = 1) -> bool | None:
            done = super().update(n)
            progress("fetch", int(self.n), int(self.total or 0))
            return done

    return Reporter


class _Nowhere:
    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        return


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    from httpx2 import HTTPError
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise Forbidden(
            "forbidden.gated",
            f"{repo} is gated: accept its terms on the Hub and set sources.hub_token",
        ) from error
    except (
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
        errors.EntryNotFoundError,
    ) as error:
        raise Missing("missing.source", f"the Hub has no {repo} at that revision") from error
    except (errors.HfHubHTTPError, HTTPError, ConnectionError, TimeoutError) as error:
        raise Unavailable(
            "unavailable.source", f"the Hub cannot be reached for {repo}: {error}"
        ) from error
