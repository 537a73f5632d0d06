"""The project that is soaked, and the data that arrives: a market whose months drift, and are sometimes broken."""

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.models import _ames as ames
from pipeline.project import CODE_FOLDER

ROOMS = ("pipeline", "expectations", "bentos", "flows")
MODEL = "market"

SPEC = '''
"""The simulated market of Ames, as its months arrive."""

import numpy as np
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from pipeline.sources import Csv
from pipeline.spec import Cron, Gate, ModelSpec, Regression

NUMBERS = ["GrLivArea", "LotArea", "OverallQual", "OverallCond", "YearBuilt", "YearRemodAdd", "GarageCars"]
WORDS = ["Neighborhood", "MSZoning", "BldgType", "KitchenQual", "SaleCondition"]

words = make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), OneHotEncoder(handle_unknown="ignore"))
features = make_column_transformer((make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS), (words, WORDS))

ridge = make_pipeline(features, Ridge())
spec = ModelSpec(
    name="market",
    source=Csv("months/*.csv"),
    key=("Id",),
    target="SalePrice",
    task=Regression(unit="USD"),
    features=(*NUMBERS, *WORDS),
    candidates={"ridge": TransformedTargetRegressor(ridge, func=np.log, inverse_func=np.exp)},
    metric="rmsle",
    gate=Gate(at_most=0.5, tolerance=0.05),
    schedule=Cron("* * * * *"),
    keep_releases=3,
)
'''

SUITE = '''
"""Good months."""

from great_expectations import expectations as gxe

from expectations.suite import Suite

suite = Suite(
    error=[
        gxe.ExpectTableRowCountToBeBetween(min_value=200),
        gxe.ExpectColumnValuesToBeUnique(column="Id"),
        gxe.ExpectColumnValuesToBeBetween(column="GrLivArea", min_value=100, max_value=20_000),
        gxe.ExpectColumnValuesToNotBeNull(column="OverallQual"),
    ],
    quarantine=[gxe.ExpectColumnValuesToBeBetween(column="SalePrice", min_value=1_000, max_value=5_000_000)],
    quarantine_at_most=0.05,
)
'''


def build(folder: Path) -> Path:
    """Copy the project into a folder, with a model of its own and its first months; return the folder of the months."""
    for room in ROOMS:
        shutil.copytree(CODE_FOLDER / room, folder / room, ignore=shutil.ignore_patterns("web", "__pycache__"))
    for module in (folder / "pipeline" / "models").glob("[a-z]*.py"):
        module.unlink()
        (folder / "expectations" / "suites" / module.name).unlink(missing_ok=True)
    (folder / "pipeline" / "models" / f"{MODEL}.py").write_text(SPEC)
    (folder / "expectations" / "suites" / f"{MODEL}.py").write_text(SUITE)
    for name in ("requirements.txt", "pyproject.toml", "README.md"):
        shutil.copy(CODE_FOLDER / name, folder / name)
    months = folder / "months"
    months.mkdir()
    arrive(months, 0, month(0, rows=600))
    return months


def month(number: int, rows: int = 60) -> pd.DataFrame:
    """Return the sales of a month: prices rise by 1% a month, and houses get larger by half of that."""
    sales = ames.market(rows, seed=number)
    return sales.assign(
        Id=sales["Id"] + 10_000 * number,
        SalePrice=(sales["SalePrice"] * 1.01**number).round(),
        GrLivArea=(sales["GrLivArea"] * 1.005**number).round(),
    )


def arrive(months: Path, number: int, sales: pd.DataFrame) -> Path:
    """Write a month as an export does that is careful: whole or not at all."""
    path = months / f"{number:04}.csv"
    part = months / f".{path.name}"
    sales.to_csv(part, index=False)
    part.replace(path)
    return path


@dataclass(frozen=True)
class Damage:
    """One way in which an export breaks."""

    name: str
    do: Callable[[Path, pd.DataFrame], None]


def _garbage(path: Path, _: pd.DataFrame) -> None:
    path.write_bytes(os.urandom(20_000))


def _half(path: Path, sales: pd.DataFrame) -> None:
    sales.to_csv(path, index=False)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * 2 // 3)


def _lost_column(path: Path, sales: pd.DataFrame) -> None:
    sales.drop(columns="OverallQual").to_csv(path, index=False)


def _other_unit(path: Path, sales: pd.DataFrame) -> None:
    sales.assign(GrLivArea=sales["GrLivArea"] * 0.0929).to_csv(path, index=False)


def _twice(path: Path, sales: pd.DataFrame) -> None:
    pd.concat([sales, sales]).to_csv(path, index=False)


def _cents(path: Path, sales: pd.DataFrame) -> None:
    sales.assign(SalePrice=sales["SalePrice"].where(sales.index % 9 > 0, 1)).to_csv(path, index=False)


DAMAGES = (
    Damage("random bytes", _garbage),
    Damage("a file cut off", _half),
    Damage("a column lost", _lost_column),
    Damage("square metres for square feet", _other_unit),
    Damage("every row twice", _twice),
    Damage("a ninth of the prices 1 USD (quarantine)", _cents),
)


def breaks(months: Path, number: int, chance: random.Random) -> tuple[str, Callable[[], Path]]:
    """Write a broken month; return what is wrong with it, and what puts it right."""
    damage, sales = chance.choice(DAMAGES), month(number)
    damage.do(months / f"{number:04}.csv", sales)
    return damage.name, lambda: arrive(months, number, sales)
