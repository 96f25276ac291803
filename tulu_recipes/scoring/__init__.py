"""What a reward model says: scores of conversations, of a dataset, and how far they can be trusted."""
