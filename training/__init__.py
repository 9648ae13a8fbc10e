"""Everything of a training run but its loop (trainer.py)."""
