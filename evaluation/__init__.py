"""What evaluate.py measures: questions with several choices, and bits per byte."""
