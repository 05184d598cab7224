"""marl-llm: train teams of LLM agents by self-play, with credit assignment that can be audited."""
