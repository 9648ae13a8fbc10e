"""Checkpoints: the file, what is in it, older formats, shards, saving, a run's files."""
