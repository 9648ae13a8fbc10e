"""Device, precision, memory, and the processes that train together."""
