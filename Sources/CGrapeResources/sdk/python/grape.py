"""Grape SDK for Python (placeholder until the SDK lands)."""
