"""What a layer has seen: its contexts, its output gradients, and how they are gathered into one matrix."""
