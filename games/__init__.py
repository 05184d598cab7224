"""Games that speak text, as PettingZoo environments. Usable without `marl_llm`, which they never import."""
