"""tunegate: the evaluation-gated registry for LoRA/QLoRA adapters."""

__version__ = "0.1.0"
