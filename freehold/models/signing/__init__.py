"""OpenSSF Model Signing v1.0: statements, bundles, keys, and whom we trust."""
