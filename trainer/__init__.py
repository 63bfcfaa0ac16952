"""From training data to an adapter with its history: recipe, data, QLoRA run, record."""
