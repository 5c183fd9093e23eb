"""The bundle: written whole or not at all, read safely or not at all."""
