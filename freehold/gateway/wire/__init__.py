"""One file a dialect: bytes of a client's request to a ``Call``, an engine's answer back."""
