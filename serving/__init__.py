"""What serve.py serves: a model that many clients use at once, the OpenAI API, and a page that looks inside the model."""
