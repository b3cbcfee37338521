"""What a trained model is examined on: one file per axis, each yielding scored items, and the likelihood scoring they share."""
