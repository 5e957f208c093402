"""cambrian_model."""
