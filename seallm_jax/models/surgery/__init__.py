"""Models made of other models, without training: merged, or with more blocks."""
