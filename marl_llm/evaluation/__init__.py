"""Evaluation: how well a policy plays."""
