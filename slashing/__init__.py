"""Emergencies: what E pre-signs, what W rejects after a release, what gets it into a block; and recovery without W."""
