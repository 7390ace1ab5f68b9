"""Documents, and what generates the reference among them."""
