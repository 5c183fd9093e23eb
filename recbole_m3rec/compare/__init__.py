"""Many models on many datasets: trained once, compared fairly, reported as tables and pictures."""
