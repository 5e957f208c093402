"""What is added to a language model."""
