"""What the front is built on; it imports nothing of it but config and utils."""
