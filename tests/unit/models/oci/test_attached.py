"""Signatures as artifacts about what they sign."""

import msgspec

from freehold.models.oci.attached import attach, bundles_of
from freehold.models.oci.manifest import MANIFEST, Manifest, read_manifest
from freehold.models.signing.bundle import LARGEST


def test_what_is_too_large_for_a_signature_is_not_read_as_one() -> None:
    made = read_manifest(attach(b"bundle", b"{}", MANIFEST).manifest)
    assert isinstance(made, Manifest)
    assert [each.size for each in bundles_of(made)] == [6]
    large = msgspec.structs.replace(made.layers[0], size=LARGEST + 1)
    assert bundles_of(msgspec.structs.replace(made, layers=(large,))) == ()
