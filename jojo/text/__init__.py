"""Text files -> documents -> token ids on disk."""
