"""What an experiment will need, told before anything is loaded: memory, tokens per step and time per step."""
