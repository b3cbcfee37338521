"""What a trained model is examined on: one file per axis, each of which yields scored items of one kind."""
