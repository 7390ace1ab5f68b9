"""Rows of what describes versions: their model cards, and the signatures over their files."""

import msgspec
from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from freehold.store.tables import ARTIFACTS, CARDS, SIGNATURES


class SignatureRow(msgspec.Struct, frozen=True, kw_only=True):
    """A signature over the files of a version: the bytes of a bundle, and their SHA-256 as id."""

    model: str
    number: int
    id: str
    bundle: bytes
    created: float
    created_by: str


def set_card(connection: Connection, model: str, number: int, text: str) -> None:
    """Keep a version's model card, in place of the one it had."""
    row = insert(CARDS).values(model=model, number=number, text=text)
    connection.execute(
        row.on_conflict_do_update(index_elements=["model", "number"], set_={"text": text})
    )


def card_of(connection: Connection, model: str, number: int) -> str | None:
    """Return a version's model card."""
    of = (CARDS.c.model == model, CARDS.c.number == number)
    text: str | None = connection.execute(select(CARDS.c.text).where(*of)).scalar()
    return text


def add_signature(connection: Connection, row: SignatureRow) -> None:
    """Keep a signature; one that is there already stays as it is."""
    connection.execute(
        insert(SIGNATURES).values(**msgspec.structs.asdict(row)).on_conflict_do_nothing()
    )


def signatures_of(connection: Connection, model: str, number: int) -> list[SignatureRow]:
    """Return the signatures of a version, oldest first."""
    rows = connection.execute(
        select(SIGNATURES)
        .where(SIGNATURES.c.model == model, SIGNATURES.c.number == number)
        .order_by(SIGNATURES.c.created, SIGNATURES.c.id)
    )
    return [SignatureRow(**row) for row in rows.mappings()]


def signatures_over(connection: Connection, digest: str) -> list[SignatureRow]:
    """Return the signatures of every version that has a file with this digest."""
    joined = SIGNATURES.join(
        ARTIFACTS,
        (SIGNATURES.c.model == ARTIFACTS.c.model) & (SIGNATURES.c.number == ARTIFACTS.c.number),
    )
    rows = connection.execute(
        select(SIGNATURES).select_from(joined).where(ARTIFACTS.c.digest == digest).distinct()
    )
    return [SignatureRow(**row) for row in rows.mappings()]


def remove_signature(connection: Connection, model: str, number: int, id_: str) -> bool:
    """Forget a signature; say whether it was there."""
    of = (SIGNATURES.c.model == model, SIGNATURES.c.number == number, SIGNATURES.c.id == id_)
    return connection.execute(delete(SIGNATURES).where(*of)).rowcount > 0
