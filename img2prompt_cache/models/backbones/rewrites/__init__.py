"""Rewrites of a backbone that compute the same features faster."""
