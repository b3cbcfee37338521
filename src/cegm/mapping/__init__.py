"""How a context shapes a gradient: the map of its spectrum, the normalisation after it, and the entanglement coefficient."""
