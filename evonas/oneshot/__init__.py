"""Methods that train all networks of a space at once, in one that holds them all."""
