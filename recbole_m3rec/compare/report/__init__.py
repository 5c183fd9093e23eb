"""A comparison as HTML, Markdown, LaTeX, CSV and figures."""
