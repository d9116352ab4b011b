"""Raw text to clean, language-tagged documents."""
