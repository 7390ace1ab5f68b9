"""What belongs to a version besides its files: its model card, and signatures over it."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress

from freehold.errors import FreeholdError, Invalid, Missing
from freehold.models.registry import Registry, Version
from freehold.models.signing.bundle import decode
from freehold.models.signing.signer import check_extra
from freehold.models.signing.statement import read_statement
from freehold.models.signing.trust import Trust, Verified
from freehold.store import cards
from freehold.store.cards import SignatureRow
from freehold.store.database import Database

CARD_BYTES = 256 * 1024
MOST_SIGNATURES = 64


class Papers:
    """Reads and writes the papers of versions; ``trust`` says whose signatures count."""

    def __init__(self, database: Database, registry: Registry, trust: Trust) -> None:
        self._database = database
        self._registry = registry
        self.trust = trust

    def card(self, model: str, number: int) -> str | None:
        """Return a version's model card, in Markdown."""
        with self._database.reading() as connection:
            return cards.card_of(connection, model, number)

    def set_card(self, model: str, number: int, text: str) -> None:
        """Keep a version's model card."""
        self._registry.version(model, number)
        if len(text.encode()) > CARD_BYTES:
            raise Invalid("invalid.card", f"a model card is at most {CARD_BYTES} bytes")
        with self._database.transaction() as connection:
            cards.set_card(connection, model, number, text)

    def signatures(self, model: str, number: int) -> list[SignatureRow]:
        """Return a version's signatures, oldest first."""
        with self._database.reading() as connection:
            return cards.signatures_of(connection, model, number)

    def sign(self, version: Version, bundle: bytes, now: float, by: str) -> SignatureRow:
        """Keep a signature over a version's files; ``Invalid`` where it is over others."""
        check_over(bundle, [artifact.digest for artifact in version.artifacts])
        model, number = version.row.model, version.row.number
        row = SignatureRow(
            model=model,
            number=number,
            id=hashlib.sha256(bundle).hexdigest(),
            bundle=bundle,
            created=now,
            created_by=by,
        )
        with self._database.transaction() as connection:
            kept = {each.id for each in cards.signatures_of(connection, model, number)}
            if row.id not in kept and len(kept) >= MOST_SIGNATURES:
                raise Invalid(
                    "invalid.signature", f"{model}:{number} has {MOST_SIGNATURES} already"
                )
            cards.add_signature(connection, row)
        return row

    def forget_signature(self, model: str, number: int, id_: str) -> None:
        """Remove a signature."""
        with self._database.transaction() as connection:
            if not cards.remove_signature(connection, model, number, id_):
                raise Missing("missing.signature", f"{model}:{number} has no signature {id_!r:.80}")

    def standing(self, row: SignatureRow, version: Version) -> tuple[str | None, str | None]:
        """Return who made a signature of a version, where it counts here; else why it does not."""
        try:
            check_extra()
            found = self.trust.verify(row.bundle)
        except FreeholdError as error:
            return None, error.message
        if not found.signed.covers([artifact.digest for artifact in version.artifacts]):
            return None, f"the signature by {found.signer} is over other files"
        return found.signer, None

    def signer(self, version: Version) -> Verified:
        """Return who signed a version; ``Forbidden`` where nobody that is trusted did."""
        bundles = [row.bundle for row in self.signatures(version.row.model, version.row.number)]
        return self.trust.find(bundles, [artifact.digest for artifact in version.artifacts])

    def check_deploying(self, reference: str | None) -> None:
        """Raise ``Forbidden`` for a version that would not be loaded."""
        if self.trust.required and reference is not None:
            self.signer(self._registry.resolve(reference))

    def check_loading(self, digest: str) -> None:
        """Raise ``Forbidden`` for a file that may not be loaded, where signatures are required."""
        if not self.trust.required:
            return
        with self._database.reading() as connection:
            rows = cards.signatures_over(connection, digest)
        self.trust.find([row.bundle for row in rows], [digest])


def admit(
    papers: Papers, given: bytes | None, beside: Sequence[bytes | None], digests: list[str]
) -> tuple[bytes, ...]:
    """Return the signatures to keep with files that are brought in.

    ``given`` by who brings them must be over them; those that came along, ``beside`` them or
    attached to them in a registry, may be over others, and are not kept then.
    ``Forbidden`` where signatures are required and none of somebody trusted is over all files.
    """
    found = []
    if given is not None:
        check_over(given, digests)
        found.append(given)
    for bundle in filter(None, beside):
        with suppress(FreeholdError):
            check_over(bundle, digests)
            found.append(bundle)
    if papers.trust.required:
        papers.trust.find(found, digests)
    return tuple(dict.fromkeys(found))[:MOST_SIGNATURES]


def check_over(bundle: bytes, digests: list[str]) -> None:
    """Raise ``Invalid`` unless a bundle says that it is over all of these files."""
    if not read_statement(decode(bundle).payload).covers(digests):
        raise Invalid(
            "invalid.signature",
            "the signature is over other files than these: sign this very version",
            param="signature",
        )
