"""Pixels: bytes and a Transform in, bytes out. Pure and synchronous; no network, no settings."""
