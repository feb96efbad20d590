"""Checkpoints larger than memory: pruned from file to file, one block at a time."""
