"""Connectors: visual features of several encoders to image tokens of the language model."""
