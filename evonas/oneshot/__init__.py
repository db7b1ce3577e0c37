"""One-shot methods, which train all networks of a space at once, in a supernet."""
