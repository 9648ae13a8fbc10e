"""Recipes for data sets, and (git-ignored) the sets built from them."""
