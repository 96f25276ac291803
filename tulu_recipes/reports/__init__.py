"""What a person reads after a run: curves, samples, report, card. Made from the run folder alone."""
