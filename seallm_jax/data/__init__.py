"""Packed token shards, the curriculum, batches, chat and preference formats."""
