"""Losses as pure functions of (model, batch) that return sums and counts."""
