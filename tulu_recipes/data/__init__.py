"""Rows: where they come from, how they become tokens, and what of them is supervised."""
