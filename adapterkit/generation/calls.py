"""From the requests of one call to its completions."""

from __future__ import annotations

from adapterkit.generation import logprobs
from adapterkit.generation.requests import Request, Ticket, Written
from adapterkit.generation.results import Completion, Usage
from adapterkit.generation.sampling import Sampling
from adapterkit.generation.writers import Writer


def submitted(writers: list[Writer], requests: list[Request], max_waiting: int) -> list[Ticket]:
    """A ticket each; those of one engine are enqueued together, and none when one is refused."""
    tickets: dict[int, Ticket] = {}
    try:
        for engine in {id(w.engine): w.engine for w in writers}.values():
            chosen = [i for i, w in enumerate(writers) if w.engine is engine]
            some = engine.submit([requests[i] for i in chosen], max_waiting=max_waiting)
            tickets |= zip(chosen, some, strict=True)
    except BaseException:
        for ticket in tickets.values():
            ticket.cancel()
        raise
    return [tickets[i] for i in range(len(requests))]


def completion(prompt: str, writer: Writer, sampling: Sampling, seed: int, written: Written) -> Completion:
    """What was written, and who wrote it how."""
    return Completion(
        text=written.text,
        prompt=prompt,
        adapter=writer.text,
        digests=writer.digests,
        finish_reason=written.finish_reason,
        stopped_by=written.stopped_by,
        seed=seed,
        sampling=sampling,
        usage=Usage(
            written.prompt_tokens,
            written.new_tokens,
            written.kept_tokens,
            written.cut_tokens,
            written.first_token_seconds,
        ),
        seconds=written.seconds,
        forced_base=writer.forced_base,
        kept_prefix=written.kept_tokens if written.is_of_others else 0,
        logprobs=None if written.scores is None else logprobs.told(written.scores, writer.engine.tokenizer),
    )
