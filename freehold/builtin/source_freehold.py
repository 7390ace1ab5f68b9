"""``source.freehold``: a version of another Freehold, pulled by digest from its registry."""

from freehold.builtin.source_oci import OCI
from freehold.errors import Invalid
from freehold.models.oci.reference import Reference, read_reference


class Freehold(OCI):
    """Reads ``freehold://HOST[:PORT]/NAME[:VERSION]``; a version is a number, an alias or a tag.

    The other house's key is the password of its host in the settings.
    """

    scheme = "freehold://"

    def read(self, location: str) -> Reference:
        """Return the version that a location means: production where it names none."""
        found = read_reference(location)
        if found.tag is None and found.digest is None:
            return read_reference(f"{found.host}/{found.repository}:production")
        if "/" in found.repository:
            raise Invalid(
                "invalid.reference", f"{found.repository!r:.100} is no model's name", param="source"
            )
        return found
