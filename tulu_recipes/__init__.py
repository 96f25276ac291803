"""Tülu 3 post-training as recipes: a thin layer over TRL and the Hugging Face Hub."""

__version__ = "0.1.0"
