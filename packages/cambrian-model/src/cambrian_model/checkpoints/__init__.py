"""Checkpoints: ours, and the released ones translated."""
