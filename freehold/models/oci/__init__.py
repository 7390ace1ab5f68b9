"""OCI registries: references, manifests, the ModelPack format, and a client."""
