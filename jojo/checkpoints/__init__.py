"""Checkpoints: the file, what is in it, parts, saving, a run's files."""
