"""Our own registry over HTTP, as the OCI distribution specification words it."""
