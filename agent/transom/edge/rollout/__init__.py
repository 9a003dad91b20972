"""Newer models on a running agent: where they lie, how they are tried beside the one that runs, and the way back."""
