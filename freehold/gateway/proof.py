"""Proof between gateways and control that each is who it says, without telling the secret.

Control listens on a port of this machine, which is anybody's once control is gone. So a gateway
shows that it knows the secret of this life of control by a keyed hash over its question and a fresh
number, and believes an answer only with one over that number and the answer.
"""

import hmac
import secrets

import msgspec

NONCE = "x-freehold-nonce"
PROOF = "x-freehold-proof"


class Challenge(msgspec.Struct, frozen=True):
    """One question's number, and how to tell its answer."""

    secret: str
    nonce: str

    def ask(self, *parts: bytes) -> str:
        """Return the proof that goes with a question."""
        return _tag(self.secret, "ask", self.nonce, parts)

    def answer(self, *parts: bytes) -> str:
        """Return the proof that goes with its answer."""
        return _tag(self.secret, "answer", self.nonce, parts)

    def holds(self, found: str | None, expected: str) -> bool:
        """Say whether a proof that came is the one expected; nothing proves an empty secret."""
        given = (found or "").encode("utf-8", "replace")
        return bool(self.secret and self.nonce) and hmac.compare_digest(given, expected.encode())


def challenge(secret: str) -> Challenge:
    """Return a fresh challenge."""
    return Challenge(secret, secrets.token_hex(16))


def _tag(secret: str, role: str, nonce: str, parts: tuple[bytes, ...]) -> str:
    # Lengths in front: no two lists of parts come to the same bytes.
    head = [role.encode(), nonce.encode("utf-8", "replace"), *parts]
    text = b"".join(b"%d:%b" % (len(part), part) for part in head)
    return hmac.digest(secret.encode(), text, "sha256").hex()
