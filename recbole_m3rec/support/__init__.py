"""Small shared services: safe writes, suggestions."""
