"""To and from Hugging Face's form of a model, and the Hub."""
