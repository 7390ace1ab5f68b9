"""What keeps the desired state true, and tells gateways about it."""
