"""Stand-in until the real one is merged."""

from marl_llm.errors import RunError


class Acts:
    def __init__(self, run):
        pass

    def ask(self, request, tell):
        raise RunError("not yet")

    def close(self):
        pass
