"""Engines: tokens in, tokens out. They know nothing of games or text."""
