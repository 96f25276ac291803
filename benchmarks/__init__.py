"""Ratios against named peers, measured in one run. Not timed tests: nothing here passes or fails by speed."""
