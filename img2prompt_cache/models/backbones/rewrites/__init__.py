"""Rewrites of a backbone that compute the same features faster, each checked against the original."""
