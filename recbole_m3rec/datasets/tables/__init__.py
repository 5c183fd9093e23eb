"""Your own tables: a purchase log, an item table and images."""
