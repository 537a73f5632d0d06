"""A model ready to answer: bytes in, columns, predictions, bytes out; no HTTP and no BentoML in it."""

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
"""Rows go to the estimator in whole blocks of this many, so that none is predicted otherwise for its company."""
QUICK_BYTES = 16_384
"""A compiled plan answers a body up to this size in a few milliseconds at most."""

logger = logging.getLogger("evergreen")


@dataclass(slots=True)
class AnsweredBody:
    """Answers, the body of the response that tells them, and how many nulls and unseen categories each feature had.

    `broken` is how many values broke which rule of the guard, by feature and rule.
    """

    answers: Answers
    body: bytes
    nulls: Mapping[str, int]
    unseen: Mapping[str, int]
    broken: Mapping[tuple[str, str], int]


class ServedModel:
    """The model of an artifact, with all that a request needs made ready once."""

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
        """The trained pipeline; where a plan answers it is loaded only for rows that the plan leaves to it."""
        return self.artifact.estimator()

    def check(self) -> None:
        """Raise ArtifactError unless the golden rows are answered as the trained pipeline answered them."""
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
        """Return the rows of a body of JSON or CSV, or why it is refused."""
        if media == formats.JSON:
            batch = self.quick.json(body) or parse_strict.read_json(body, self.schema, self.max_rows)
        else:
            batch = self.quick.csv(body) or parse_strict.read_csv(body, self.schema, self.max_rows)
        return self.guard.check(batch) if self.guard and isinstance(batch, Batch) else batch

    def write(self, media: str, answers: Answers, batch: Batch) -> bytes:
        """Return the answers to a batch in the form in which it was asked."""
        if media == formats.JSON:
            return formats.write_json(answers, self.name, self.release)
        return formats.write_csv(answers, batch.keys)

    def answer(self, media: str, body: bytes) -> AnsweredBody | Problem:
        """Return the answers to a body, or why it is refused."""
        batch = self.read(media, body)
        return batch if isinstance(batch, Problem) else self.told(media, batch, self.predict(batch))

    def answer_quickly(self, media: str, body: bytes) -> AnsweredBody | Problem | None:
        """Return the answers of the compiled plan to a body, or why it is refused; None where it has no answer."""
        batch = self.read(media, body)
        if isinstance(batch, Problem):
            return batch
        answers = self.predict_inline(batch)
        return None if answers is None else self.told(media, batch, answers)

    def told(self, media: str, batch: Batch, answers: Answers | Problem) -> AnsweredBody | Problem:
        """Return answers as they are sent, with what is worth counting; a refusal as it is."""
        if isinstance(answers, Problem):
            return answers
        counted = nulls_and_unseen(batch, self.categories)
        return AnsweredBody(answers, self.write(media, answers, batch), *counted, batch.broken)

    def predict(self, batch: Batch) -> Answers | Problem:
        """Return the answers to a batch, or a refusal that names the rows to which there is none."""
        try:
            answers = self._predict(batch)
            bad = formats.unanswered(answers)
        except ArtifactError:
            # The estimator cannot be loaded: that says nothing of the rows.
            raise
        except Exception as error:
            bad = self._refused(batch)
            if not bad:
                raise
            logger.warning("the model raised on %d rows of %d\n%s", len(bad), batch.size, trace(error))
        if not bad:
            return answers
        found = ProblemCollector()
        for row in bad:
            found.add(row, None, "the model has no answer for this row")
        return found.problem() or answers

    def predict_inline(self, batch: Batch) -> Answers | None:
        """Return the answers of the compiled plan; None where there is none, or it leaves a row to the estimator."""
        if self.program is not None:
            with suppress(UnanswerableError):
                return self.program(*columns_of(batch.columns, self.program.plan))
        return None

    def predict_batched(self, batches: Sequence[Batch]) -> list[Answers | Problem | Exception]:
        """Return the answers to each of several batches, predicted at once; one that is refused spoils no other."""

        def predict_part(start: int, stop: int) -> list[Answers | Problem | Exception]:
            if stop - start == 1:
                return [self._predict_alone(batches[start])]
            answers = self._predict(concat(batches[start:stop]))
            if formats.unanswered(answers):
                raise UnanswerableError
            return _parted(answers, [batch.size for batch in batches[start:stop]])

        # A bad one is found by halving: predicting each alone would make all the others wait for it.
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
        # Linear algebra rounds the rows that fill no whole block of its kernels otherwise. What pads is cut off again.
        padding = -batch.size % BLOCK
        table = table.take([*range(batch.size), *[batch.size - 1] * padding])
        return take(predict(self.estimator, to_frame(table, self.schema.features)), slice(batch.size))

    def _refused(self, batch: Batch) -> list[int]:
        """Return the first rows that the estimator raises on when alone."""
        parts = bisect_rows(lambda start, stop: self._predict(batch.part(start, stop)), batch.size)
        refused = (part.row for part in parts if isinstance(part, Refused))
        return list(islice(refused, problems.MAX_LISTED))


def _parted(answers: Answers, sizes: Sequence[int]) -> list[Answers | Problem | Exception]:
    parts: list[Answers | Problem | Exception] = []
    start = 0
    for size in sizes:
        parts.append(take(answers, slice(start, start + size)))
        start += size
    return parts


def trace(error: BaseException) -> str:
    """Return an exception's frames and type; its message may quote values of a request, which no log should carry."""
    return "".join(traceback.format_tb(error.__traceback__)) + type(error).__qualname__
