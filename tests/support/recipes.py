"""Recipes that only tests train."""

from pathlib import Path

SCRATCH = Path(__file__).with_name("scratch.yaml")
"""A small recipe without anything pretrained, for tests of the engine."""
