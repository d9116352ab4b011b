"""Attention within documents of packed rows."""
