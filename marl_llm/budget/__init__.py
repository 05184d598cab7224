"""How a step's games are shared out among its groups, and which of these are learned from."""
