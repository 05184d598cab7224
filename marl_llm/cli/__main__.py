"""`python -m marl_llm.cli` is `marl-llm`."""

from marl_llm.cli import main

if __name__ == "__main__":
    main()
