"""Policies and teams of a run behind an OpenAI-compatible API."""
