"""Model families as Hugging Face writes them: config.json and the names of the weights. No I/O here."""
