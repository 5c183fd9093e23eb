"""Reading and fetching raw files: lines, ids, problems, downloads."""
