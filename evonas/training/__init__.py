"""How a network is trained: the recipe, the augmentation, the loop."""
