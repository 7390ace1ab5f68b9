"""What a gateway and control say to each other about the registry, besides what clients see."""

from freehold.errors import FreeholdError
from freehold.gateway.exchange import Exchange, Whole
from freehold.gateway.faults import fault
from freehold.gateway.oci.routes import FORM

STEP, METHOD = "x-freehold-step", "x-freehold-method"
FILE, LENGTH, START = "x-freehold-file", "x-freehold-length", "x-freehold-start"
"""Which file, how many bytes it has or may get, and from which one on."""
ASK, DONE = "ask", "done"
"""May I write, and where? I have written."""
HASHED = "x-freehold-hashed"
"""``BYTES:SHA256`` of an upload as a gateway hashed it while writing; no digits: it did not."""
LONGEST_IMPORT = 6 * 3600.0
VERSION = ("docker-distribution-api-version", "registry/2.0")
CHALLENGE = ("www-authenticate", 'Basic realm="freehold"')


def refused(error: FreeholdError, exchange: Exchange) -> Whole:
    """Return the answer for an error, as registries word it and their clients expect it."""
    found = fault(error, exchange.id)
    return Whole(found.status, [*found.headers, VERSION], FORM.body(found))
