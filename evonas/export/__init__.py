"""A network to take away."""
