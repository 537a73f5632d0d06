"""What a suite's rules say of single values, as data: the guard of an endpoint, which has no Great Expectations."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.schema import Feature, Schema

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What one rule says of a feature: its values are in a range, or in a set, or not null.

    Bounds are None where there is none, and ISO 8601 in UTC for timestamps. A null breaks neither a range nor a set.
    A request that breaks the rule is refused where `refuse` says so; every value that breaks it is counted.
    """

    feature: str
    kind: Literal["range", "set", "null"]
    refuse: bool = False
    minimum: float | str | None = None
    maximum: float | str | None = None
    exclusive_minimum: bool = False
    exclusive_maximum: bool = False
    values: tuple[float | str, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the guard as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Guard":
        """Return the guard that `to_dict` wrote."""
        return cls(**{**value, "values": None if value["values"] is None else tuple(value["values"])})

    def __str__(self) -> str:
        match self.kind:
            case "null":
                return f"{self.feature} is not null"
            case "set":
                return f"{self.feature} is one of {len(self.values or ())} values"
            case _:
                return f"{self.feature} is {self.range}"

    @property
    def range(self) -> str:
        """The range in words, such as "from 1 to 10" or "more than 0"."""
        low, high = _word(self.minimum), _word(self.maximum)
        if low and high and not self.exclusive_minimum and not self.exclusive_maximum:
            return f"from {low} to {high}"
        words = [f"{'more than' if self.exclusive_minimum else 'at least'} {low}"] if low else []
        words += [f"{'less than' if self.exclusive_maximum else 'at most'} {high}"] if high else []
        return " and ".join(words)

    @property
    def bounds(self) -> tuple[Any, Any]:
        """The least and the greatest value in the range, both within it: floats, or datetimes without a zone."""
        times = isinstance(self.minimum, str) or isinstance(self.maximum, str)
        if times:
            low = datetime.min if self.minimum is None else datetime.fromisoformat(str(self.minimum))
            high = datetime.max if self.maximum is None else datetime.fromisoformat(str(self.maximum))
            return (
                low + datetime.resolution if self.exclusive_minimum else low,
                high - datetime.resolution if self.exclusive_maximum else high,
            )
        first = -np.inf if self.minimum is None else float(self.minimum)
        last = np.inf if self.maximum is None else float(self.maximum)
        return (
            float(np.nextafter(first, np.inf)) if self.exclusive_minimum else first,
            float(np.nextafter(last, -np.inf)) if self.exclusive_maximum else last,
        )


def required_by(schema: Schema, guards: Sequence[Guard]) -> Schema:
    """Return the schema with those features required whose nulls a rule refuses."""
    never = {guard.feature for guard in guards if guard.kind == "null" and guard.refuse}
    features = (replace(one, required=True) if one.name in never else one for one in schema.features)
    return replace(schema, features=tuple(features))


def passing(table: "pyarrow.Table", guards: Sequence[Guard]) -> NDArray[np.bool_]:
    """Return, per row, whether a request with it would not be refused."""
    good = np.ones(table.num_rows, dtype=bool)
    for guard in guards:
        if not guard.refuse:
            continue
        column = table.column(guard.feature)
        if guard.kind == "null":
            good &= column.is_valid().to_numpy()
        else:
            low, high = guard.bounds
            values = column.to_numpy()
            if isinstance(low, datetime):
                low, high = np.datetime64(low), np.datetime64(high)
            good &= ~((values < low) | (values > high))
    return good


def shown(features: Sequence[Mapping[str, Any]], guards: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return features as the model card shows them, with the bounds beyond which a request is refused.

    Both are as the manifest has them. Of several bounds of a feature the narrower counts.
    """
    cards = {feature["name"]: dict(feature) for feature in features}
    for guard in guards:
        if guard["kind"] == "range" and guard["refuse"]:
            card = cards[guard["feature"]]
            for bound, narrower in (("minimum", max), ("maximum", min)):
                value = guard[bound]
                if value is None or (bound in card and narrower(value, card[bound]) != value):
                    continue
                exclusive = f"exclusive_{bound}"
                flag = guard[exclusive] or (card.get(bound) == value and card.get(exclusive, False))
                card.pop(exclusive, None)
                card |= {bound: value, exclusive: True} if flag else {bound: value}
    return [*cards.values()]


def without_sensitive(
    row: Mapping[str, Any], features: Sequence[Feature], guards: Sequence[Guard], sensitive: Collection[str]
) -> dict[str, Any]:
    """Return a row of the data as it may be shown: of sensitive features only required ones, with a made-up value."""
    kept = {name: value for name, value in row.items() if name not in sensitive}
    made_up = {one.name: _allowed(one, guards) for one in features if one.name in sensitive and one.required}
    return kept | made_up


def _allowed(feature: Feature, guards: Sequence[Guard]) -> Any:
    """Return a value that a request may hold, which says nothing of the data."""
    if feature.type == "text":
        return "..."
    if feature.type == "boolean":
        return False
    if feature.type == "timestamp":
        bounds = [one.minimum or one.maximum for one in guards if one.feature == feature.name and one.kind == "range"]
        return next(filter(None, bounds), "2000-01-01T00:00:00")
    ranges = [one for one in guards if one.feature == feature.name and one.kind == "range" and one.refuse]
    low = max((one.bounds[0] for one in ranges), default=-np.inf)
    high = min((one.bounds[1] for one in ranges), default=np.inf)
    return float(np.clip(0.0, low, high))


def _word(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e16 else repr(value)
