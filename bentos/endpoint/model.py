"""A model ready to serve: it parses a body, predicts and writes the answer. No HTTP and no BentoML in it."""

import json
import logging
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from bentos.endpoint import formats, parse_strict, problems
from bentos.endpoint.batch import Batch, concat, nulls_and_unseen
from bentos.endpoint.guardrails import RequestGuard
from bentos.endpoint.parse_fast import QuickReader
from bentos.endpoint.problems import Problem, ProblemCollector
from pipeline.artifact import Artifact
from pipeline.bisect_rows import Answered, Refused, bisect_rows
from pipeline.compiled import UnanswerableError, columns_of
from pipeline.errors import ArtifactError
from pipeline.predict import Answers, disagreements, predict, take
from pipeline.schema import table_of, to_frame

BLOCK = 16
"""The estimator gets rows in whole blocks of this many, so that a prediction does not depend on the other rows."""
QUICK_BYTES = 16_384
"""The compiled plan predicts a body up to this size in a few milliseconds, so it runs inline, without a thread."""

logger = logging.getLogger("evergreen")


@dataclass(slots=True)
class AnsweredBody:
    """The answers to a request, ready to send.

    Attributes:
        answers: the predictions and probabilities.
        body: the same as JSON or CSV.
        nulls: how many nulls each feature had; zeros are left out.
        unseen: how many values of each feature training never saw; zeros are left out.
        broken: how many values broke a rule of the guard, by feature and rule.
    """

    answers: Answers
    body: bytes
    nulls: Mapping[str, int]
    unseen: Mapping[str, int]
    broken: Mapping[tuple[str, str], int]


class ServedModel:
    """The model of an artifact, with everything that requests need prepared once."""

    def __init__(self, artifact: Artifact, release: int | None) -> None:
        self.artifact, self.release = artifact, release
        self.name: str = artifact.manifest["model"]
        self.schema = artifact.schema
        self.max_rows: int = artifact.manifest["limits"]["max_rows"]
        self.quick = QuickReader(artifact.schema, self.max_rows)
        self.guard = RequestGuard(artifact.guards)
        self.categories = {
            feature.name: frozenset(feature.categories)
            for feature in artifact.schema.features
            if feature.categories is not None
        }
        self.program = artifact.compiled_model()
        if self.program is None:
            self.estimator  # noqa: B018  loaded before the first request

    @cached_property
    def estimator(self) -> Any:
        """The trained pipeline; if there is a compiled plan, it loads only for rows that the plan cannot predict."""
        return self.artifact.estimator()

    def check(self) -> None:
        """Raise ArtifactError unless the golden rows get the predictions of the trained pipeline."""
        rows, expected = self.artifact.golden()
        batch = parse_strict.read_json(json.dumps({"records": rows}).encode(), self.schema, len(rows))
        answers = batch if isinstance(batch, Problem) else self.predict(batch)
        if isinstance(answers, Problem):
            raise ArtifactError(
                f"{self.name} refuses its own golden rows: {answers.detail} Restore the package, or train again.",
                code="artifact.golden_rows_refused",
            )
        if wrong := disagreements(answers, expected, self.artifact.manifest["scale"]):
            raise ArtifactError(
                f"{self.name} does not predict as its trained pipeline did: {len(wrong)} golden rows differ, the "
                f"first: {wrong[0]}. Install the library versions of the package, or train again.",
                code="artifact.golden_rows_differ",
            )

    def read(self, media: str, body: bytes) -> Batch | Problem:
        """Parse a body of JSON or CSV: fast if it is plainly valid, otherwise strictly, which names what is wrong."""
        if media == formats.JSON:
            batch = self.quick.json(body) or parse_strict.read_json(body, self.schema, self.max_rows)
        else:
            batch = self.quick.csv(body) or parse_strict.read_csv(body, self.schema, self.max_rows)
        return self.guard.check(batch) if self.guard and isinstance(batch, Batch) else batch

    def write(self, media: str, answers: Answers, batch: Batch) -> bytes:
        """Return the answers to a batch in the media type of its request."""
        if media == formats.JSON:
            return formats.write_json(answers, self.name, self.release)
        return formats.write_csv(answers, batch.keys)

    def answer(self, media: str, body: bytes) -> AnsweredBody | Problem:
        """Return the answers to a body, or why it is refused."""
        batch = self.read(media, body)
        return batch if isinstance(batch, Problem) else self.answer_body(media, batch, self.predict(batch))

    def answer_inline(self, media: str, body: bytes) -> AnsweredBody | Problem | None:
        """Return the compiled plan's answers to a body, or why it is refused; None if the plan cannot predict a row."""
        batch = self.read(media, body)
        if isinstance(batch, Problem):
            return batch
        answers = self.predict_inline(batch)
        return None if answers is None else self.answer_body(media, batch, answers)

    def answer_body(self, media: str, batch: Batch, answers: Answers | Problem) -> AnsweredBody | Problem:
        """Return answers as they are sent, with the counts for the metrics; a refusal is returned unchanged."""
        if isinstance(answers, Problem):
            return answers
        counted = nulls_and_unseen(batch, self.categories)
        return AnsweredBody(answers, self.write(media, answers, batch), *counted, batch.broken)

    def predict(self, batch: Batch) -> Answers | Problem:
        """Return the answers to a batch, or a refusal that names the rows that the model cannot predict."""
        try:
            answers = self._predict(batch)
            bad = formats.unanswered(answers)
        except ArtifactError:
            # The estimator cannot be loaded, which is not a fault of the rows.
            raise
        except Exception as error:
            bad = self._failing_rows(batch)
            if not bad:
                raise
            logger.warning("the model raised an exception on %d of %d rows\n%s", len(bad), batch.size, trace(error))
        if not bad:
            return answers
        errors = ProblemCollector()
        for row in bad:
            errors.add(row, None, "the model has no answer for this row")
        return errors.problem() or answers

    def predict_inline(self, batch: Batch) -> Answers | None:
        """Return the compiled plan's answers; None if there is no plan or it cannot predict one of the rows."""
        if self.program is not None:
            with suppress(UnanswerableError):
                return self.program(*columns_of(batch.columns, self.program.plan))
        return None

    def predict_batched(self, batches: Sequence[Batch]) -> list[Answers | Problem | Exception]:
        """Return the answers to each of several batches, predicted in one call; a refused one affects no other."""

        def predict_part(start: int, stop: int) -> list[Answers | Problem | Exception]:
            if stop - start == 1:
                return [self._predict_alone(batches[start])]
            answers = self._predict(concat(batches[start:stop]))
            if formats.unanswered(answers):
                raise UnanswerableError
            return _split(answers, [batch.size for batch in batches[start:stop]])

        # Bisection finds a bad batch; predicting each batch alone would make all others wait.
        parts = bisect_rows(predict_part, len(batches))
        return [answers for part in parts if isinstance(part, Answered) for answers in part.result]

    def _predict_alone(self, batch: Batch) -> Answers | Problem | Exception:
        try:
            return self.predict(batch)
        except Exception as error:
            return error

    def _predict(self, batch: Batch) -> Answers:
        answers = self.predict_inline(batch)
        if answers is not None:
            return answers
        table = table_of(batch.columns, self.schema.features)
        # Linear algebra rounds rows of an incomplete block differently, so the last row is repeated to fill the block.
        padding = -batch.size % BLOCK
        table = table.take([*range(batch.size), *[batch.size - 1] * padding])
        return take(predict(self.estimator, to_frame(table, self.schema.features)), slice(batch.size))

    def _failing_rows(self, batch: Batch) -> list[int]:
        """Return the first rows on which the estimator raises when it predicts each alone."""
        parts = bisect_rows(lambda start, stop: self._predict(batch.part(start, stop)), batch.size)
        refused = (part.row for part in parts if isinstance(part, Refused))
        return list(islice(refused, problems.MAX_LISTED))


def _split(answers: Answers, sizes: Sequence[int]) -> list[Answers | Problem | Exception]:
    parts: list[Answers | Problem | Exception] = []
    start = 0
    for size in sizes:
        parts.append(take(answers, slice(start, start + size)))
        start += size
    return parts


def trace(error: BaseException) -> str:
    """Return an exception's frames and type; without its message, which may quote values of the request."""
    return "".join(traceback.format_tb(error.__traceback__)) + type(error).__qualname__
