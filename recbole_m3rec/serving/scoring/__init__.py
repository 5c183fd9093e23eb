"""From histories to the best items, exactly or by an index."""
