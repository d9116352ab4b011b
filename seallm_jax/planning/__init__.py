"""Compile the training step for a TPU topology without a TPU."""
