"""Formulas of the recipes: pure functions on torch tensors, each with one home and its source."""
