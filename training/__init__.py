"""Everything in a training run except its loop, which is in trainer.py."""
