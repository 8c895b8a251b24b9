"""Cheap statistics of every feature: geometry, activation, co-activation, direct logits."""
