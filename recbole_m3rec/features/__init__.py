"""Item features, keyed by item token: made, stored, read and aligned."""
