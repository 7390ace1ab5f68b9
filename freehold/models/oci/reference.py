"""How an artifact in a registry is named: ``HOST[:PORT]/REPOSITORY[:TAG][@DIGEST][#FILE]``."""

import re

import msgspec

from freehold.errors import Invalid

HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*", re.ASCII)
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_FORM = re.compile(
    rf"(?P<host>{HOST})/(?P<repository>[^:@#]+)(?::(?P<tag>[^@#]*))?(?:@(?P<digest>[^#]*))?"
    r"(?:#(?P<file>.+))?",
    re.ASCII,
)
LONGEST = 255


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact: where it is and which; ``file`` names one of several that it holds."""

    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None
    file: str | None = None

    @property
    def label(self) -> str:
        """What to ask the registry for: the digest where there is one."""
        return self.digest or self.tag or "latest"

    def __str__(self) -> str:
        """Return it as it was written."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.host}/{self.repository}{tag}{digest}"


def read_reference(text: str) -> Reference:
    """Return what a reference means; ``Invalid`` says which part of it is wrong."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise _wrong(text, "write HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST]")
    host, repository, tag, digest, file = found.groups()
    if len(repository) > LONGEST or not REPOSITORY.fullmatch(repository):
        raise _wrong(text, "a repository is of a-z, 0-9, '.', '_', '-' and '/'")
    if tag is not None and not TAG.fullmatch(tag):
        raise _wrong(text, "a tag is of letters, digits, '.', '_' and '-', at most 128")
    if digest is not None and not DIGEST.fullmatch(digest):
        raise _wrong(text, no_digest(digest))
    return Reference(host=host.lower(), repository=repository, tag=tag, digest=digest, file=file)


def no_digest(text: str) -> str:
    """Return what is wrong with a digest that is none of ours."""
    algorithm, colon, _ = text.partition(":")
    if colon and re.fullmatch(r"[a-z0-9+._-]{1,20}", algorithm) and algorithm != "sha256":
        return (
            f"{text!r:.40} is a digest of another kind than SHA-256, the one that every registry "
            "knows, and the only one here: push the artifact again with sha256 digests"
        )
    return f"{text!r:.100} is no digest: sha256: and 64 lower-case hexadecimal digits is one"


def _wrong(text: str, why: str) -> Invalid:
    return Invalid("invalid.reference", f"{text!r:.160} names no artifact: {why}", param="source")
