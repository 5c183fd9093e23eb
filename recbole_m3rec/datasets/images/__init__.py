"""Download item images and report what came."""
