"""Models in Hugging Face's format: export, import, and the Hub."""
