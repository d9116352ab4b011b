"""Learn and extend tokenizers, initialise embeddings, measure fertility."""
