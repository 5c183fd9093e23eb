"""Operations on packed sequences, each with a PyTorch fallback; knows PyTorch alone."""
