"""Measures, kept apart from what is measured: how good `lite` is, how fast we are beside others."""
