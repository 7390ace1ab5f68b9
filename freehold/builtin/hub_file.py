"""A large file of the Hub by several connections, where its own library would take one.

What the Hub keeps in Xet comes by the library, which fetches that in parallel by itself; mirrors
and proxies inside a company mostly speak plain HTTP.
"""

import re
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from freehold.errors import Unavailable
from freehold.models.download import TRIES, Wanted, download, open_client
from freehold.models.ranges import is_worth
from freehold.settings import Sources, environment

WEIGHTS = (".gguf", ".safetensors", ".onnx", ".onnx_data")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def by_ranges(
    api: Any,
    settings: Sources,
    place: tuple[str, str, str],
    scratch: Path,
    progress: Callable[[int, int], None],
) -> Path | None:
    """Return where a file lies now, or None where the library does it better, or alone can.

    ``place`` is repository, file and commit. The file's digest is the one that the Hub says.
    """
    if not place[1].endswith(WEIGHTS):
        return None
    for _ in range(TRIES):
        wanted = _locate(api, settings, *place)
        if wanted is None:
            return None
        # By its digest: one that lies there from an earlier try may be of another commit.
        target = scratch / f"lfs-{wanted.sha256[:32]}"
        if target.exists():
            return target
        told = partial(_of, progress, wanted.bytes or 0)
        try:
            with open_client(settings, environment()) as client:
                download(client, wanted, target, told)
            return target
        except Unavailable as error:
            # The address it is had from is good for an hour: the next one goes on with it.
            if error.details.get("status") not in (401, 403):
                raise
    return None


def _of(progress: Callable[[int, int], None], size: int, done: int) -> None:
    progress(done, size)


def _locate(api: Any, settings: Sources, repo: str, file: str, commit: str) -> Wanted | None:
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    url = hf_hub_url(repo, file, revision=commit, endpoint=api.endpoint)
    found = api.get_hf_file_metadata(url=url, timeout=settings.timeout)
    in_xet = found.xet_file_data is not None
    if in_xet and find_spec("hf_xet") is not None and not constants.HF_HUB_DISABLE_XET:
        return None
    if not is_worth(found.size) or not _SHA256.fullmatch(found.etag or ""):
        return None
    place = url if in_xet else found.location
    told = build_hf_headers(token=api.token).get("authorization")
    own = urlsplit(place)[:2] == urlsplit(url)[:2]  # where else it is, the URL is signed
    headers = (("authorization", told),) if told and own else ()
    return Wanted(url=place, sha256=found.etag, bytes=found.size, headers=headers)
