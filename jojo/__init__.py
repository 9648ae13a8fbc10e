"""The library that the files in the root are built on. Of those it imports only config and utils."""
