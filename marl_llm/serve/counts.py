"""What is counted, in the text form that Prometheus reads."""

from collections import Counter, defaultdict

BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds of the histogram of latencies."""


class Counts:
    """Used by one thread, the one that answers."""

    def __init__(self) -> None:
        self.in_flight = 0
        """Requests that are being answered."""
        self._requests: Counter[tuple[str, int]] = Counter()
        self._tokens: Counter[tuple[str, str]] = Counter()
        self._buckets: dict[str, list[int]] = defaultdict(lambda: [0] * (len(BOUNDS_S) + 1))
        self._sums: dict[str, float] = defaultdict(float)

    def answered(self, model: str, status: int, seconds: float) -> None:
        """A request is over. `model`: empty where it named none that there is, so that there are no more than these."""
        self._requests[model, status] += 1
        if status == 200:
            place = next((i for i, bound in enumerate(BOUNDS_S) if seconds <= bound), len(BOUNDS_S))
            self._buckets[model][place] += 1
            self._sums[model] += seconds

    def used(self, model: str, prompt: int, sampled: int) -> None:
        """Tokens that an answer took."""
        self._tokens[model, "prompt"] += prompt
        self._tokens[model, "sampled"] += sampled

    def text(self) -> str:
        """All of it."""
        lines = [
            "# HELP marl_llm_requests_total Requests that were answered, by model and status (499: the client left).",
            "# TYPE marl_llm_requests_total counter",
            *(
                f'marl_llm_requests_total{{model="{_label(model)}",status="{status}"}} {count}'
                for (model, status), count in sorted(self._requests.items())
            ),
            "# HELP marl_llm_requests_in_flight Requests that are being answered.",
            "# TYPE marl_llm_requests_in_flight gauge",
            f"marl_llm_requests_in_flight {self.in_flight}",
            "# HELP marl_llm_tokens_total Tokens read and sampled, by model.",
            "# TYPE marl_llm_tokens_total counter",
            *(
                f'marl_llm_tokens_total{{model="{_label(model)}",kind="{kind}"}} {count}'
                for (model, kind), count in sorted(self._tokens.items())
            ),
            "# HELP marl_llm_request_seconds Time to a whole answer, of requests that had one.",
            "# TYPE marl_llm_request_seconds histogram",
        ]
        for model, buckets in sorted(self._buckets.items()):
            name, total = _label(model), 0
            for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), buckets, strict=True):
                total += count
                lines.append(f'marl_llm_request_seconds_bucket{{model="{name}",le="{bound}"}} {total}')
            lines.append(f'marl_llm_request_seconds_sum{{model="{name}"}} {self._sums[model]}')
            lines.append(f'marl_llm_request_seconds_count{{model="{name}"}} {total}')
        return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
