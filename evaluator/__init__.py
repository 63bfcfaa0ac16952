"""Measuring an adapter through vLLM: evidence, never a verdict."""
