"""Programs that measure: each prints a table of ratios from one run and asserts nothing."""
