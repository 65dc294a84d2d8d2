"""What this project's client sees of a server, counted for Prometheus (`monitoring/` says how it is scraped)."""

from collections.abc import Iterable
from contextlib import AbstractContextManager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from elle.base.errors import ElleError
from elle.evaluation.verdict import Record
from elle.serving.client import Answer

#: How a request ended: answered; cut off at max_tokens; failed, with no answer.
OUTCOMES = ("answered", "cut_off", "failed")
#: What the evaluator says of an answer. right: everything that it checks holds; wrong: a briefing by its schema with a
#: fault in it; not_schema: JSON, but not a briefing; and three ways of not being strictly one JSON object.
VERDICTS = ("right", "wrong", "not_schema", "code_fence", "prose", "no_json")
#: Seconds, of whole answers: a nano model's tenths to a queue's minutes.
BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)


class Exporter(AbstractContextManager):
    """Counts requests and verdicts, and shows them on http://127.0.0.1:`port`/metrics until it is closed:

        with Exporter(9109) as seen:
            collect(server, rows, path, arrived=seen.arrived, judged=seen.judged)

    elle_requests_total{outcome}, elle_tokens_total{kind}, elle_request_duration_seconds, elle_briefings_total{verdict},
    elle_server_dollars_per_hour{server}. Every label's value is there from the start, at 0: Prometheus takes no notice
    of the first count of a series that begins with it.

    Args:
        port: of loopback only; 0 takes a free one.
        server: the address asked, for telling prices of several servers apart.
        dollars_per_hour: the price of that server; None: not known.

    Raises:
        ElleError: the port is taken.
    """

    def __init__(self, port: int, *, server: str = "", dollars_per_hour: float | None = None):
        self.registry = CollectorRegistry()
        self._requests = self._counter("elle_requests", "Requests that have ended.", "outcome", OUTCOMES)
        self._tokens = self._counter("elle_tokens", "Tokens, as the server counts.", "kind", ("prompt", "completion"))
        self._briefings = self._counter("elle_briefings", "Answers, as the evaluator judges.", "verdict", VERDICTS)
        text = "To the last byte, retries included."
        self._seconds = Histogram("elle_request_duration_seconds", text, buckets=BUCKETS, registry=self.registry)
        if dollars_per_hour is not None:
            price = Gauge("elle_server_dollars_per_hour", "As it was given.", ["server"], registry=self.registry)
            price.labels(server).set(dollars_per_hour)
        try:
            self._http, self._thread = start_http_server(port, "127.0.0.1", self.registry)
        except OSError as error:
            fix = "choose another port, or end the program that has it"
            raise ElleError(f"port {port} cannot be used: {error.strerror}", where="metrics port", fix=fix) from error
        self.port = self._http.server_port

    def arrived(self, answers: Iterable[Answer]) -> None:
        """Count requests that have ended."""
        for answer in answers:
            outcome = "cut_off" if answer.finish_reason == "length" else "answered"
            self._requests.labels("failed" if answer.error else outcome).inc()
            if not answer.error:
                self._tokens.labels("prompt").inc(answer.prompt_tokens)
                self._tokens.labels("completion").inc(answer.completion_tokens)
                self._seconds.observe(answer.seconds)

    def judged(self, record: Record) -> None:
        """Count a verdict."""
        self._briefings.labels(outcome_of(record)).inc()

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _counter(self, name: str, text: str, label: str, values: Iterable[str]) -> Counter:
        counter = Counter(name, text, [label], registry=self.registry)
        for value in values:
            counter.labels(value)
        return counter


def outcome_of(record: Record) -> str:
    """Which one of `VERDICTS` an answer got: the first thing that is wrong with it."""
    if not record.counts["json_strict"][0]:
        ways = {"from a code fence": "code_fence", "from surrounding prose": "prose"}
        return ways.get(record.parsed.how, "no_json")
    if not record.counts["schema"][0]:
        return "not_schema"
    return "right" if record.counts["all_right"][0] else "wrong"
