"""A simulated housing market: houses that never stood, sold in an Ames, Iowa that never was.

The columns, codes and missing values follow the published description of the Ames data (De Cock, Journal of
Statistics Education 19(3), 2011); the numbers behind them are round guesses, and no row comes from a real sale. Use it
to try the pipeline out, never to learn anything about houses.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

# Share of sales, typical year built, typical lot in square feet, price level (log), zoning.
NEIGHBORHOODS = {
    "Blmngtn": (0.010, 2004, 3_500, 0.04, "RL"),
    "Blueste": (0.004, 1980, 1_800, -0.10, "RM"),
    "BrDale": (0.011, 1972, 1_900, -0.22, "RM"),
    "BrkSide": (0.038, 1932, 7_000, -0.12, "RM"),
    "ClearCr": (0.016, 1966, 17_000, 0.10, "RL"),
    "CollgCr": (0.092, 1998, 9_500, 0.05, "RL"),
    "Crawfor": (0.035, 1942, 10_500, 0.14, "RL"),
    "Edwards": (0.066, 1955, 9_500, -0.12, "RL"),
    "Gilbert": (0.057, 1999, 10_000, 0.02, "RL"),
    "IDOTRR": (0.032, 1925, 8_000, -0.26, "RM"),
    "MeadowV": (0.013, 1973, 2_200, -0.25, "RM"),
    "Mitchel": (0.039, 1982, 10_500, -0.02, "RL"),
    "NAmes": (0.150, 1960, 9_800, -0.05, "RL"),
    "NPkVill": (0.008, 1976, 2_600, -0.04, "RL"),
    "NWAmes": (0.045, 1975, 11_500, 0.02, "RL"),
    "NoRidge": (0.024, 1995, 13_000, 0.20, "RL"),
    "NridgHt": (0.057, 2006, 11_000, 0.20, "RL"),
    "OldTown": (0.080, 1922, 8_000, -0.18, "RM"),
    "SWISU": (0.016, 1925, 7_500, -0.10, "RL"),
    "Sawyer": (0.052, 1964, 10_000, -0.06, "RL"),
    "SawyerW": (0.042, 1989, 9_500, 0.01, "RL"),
    "Somerst": (0.062, 2004, 8_000, 0.10, "FV"),
    "StoneBr": (0.017, 1999, 10_000, 0.22, "RL"),
    "Timber": (0.025, 1994, 14_000, 0.12, "RL"),
    "Veenker": (0.009, 1977, 14_000, 0.13, "RL"),
}
# Sales from January to December: busy in early summer.
SEASON = (0.05, 0.05, 0.08, 0.10, 0.14, 0.17, 0.15, 0.09, 0.05, 0.05, 0.04, 0.03)
# What each word adds to the log price.
WORTH = {
    "KitchenQual": {"Fa": -0.06, "TA": 0.0, "Gd": 0.04, "Ex": 0.10},
    "ExterQual": {"Fa": -0.05, "TA": 0.0, "Gd": 0.03, "Ex": 0.07},
    "BsmtExposure": {"No": 0.0, "Mn": 0.01, "Av": 0.02, "Gd": 0.06},
    "CentralAir": {"N": -0.08, "Y": 0.0},
    "Functional": {"Maj1": -0.20, "Mod": -0.12, "Min2": -0.06, "Min1": -0.05, "Typ": 0.0},
    "Condition1": {"Norm": 0.0, "Feedr": -0.05, "Artery": -0.10, "PosN": 0.06, "RRAn": -0.04},
    "BldgType": {"1Fam": 0.0, "TwnhsE": -0.05, "Twnhs": -0.12, "Duplex": -0.14, "2fmCon": -0.06},
    "MSZoning": {"RL": 0.0, "FV": 0.0, "RM": -0.04, "RH": -0.04, "C (all)": -0.35},
    "SaleCondition": {"Normal": 0.0, "Partial": 0.06, "Abnorml": -0.12, "Family": -0.08, "Alloca": -0.05},
}


def market(rows: int = 1_460, seed: int = 0) -> pd.DataFrame:
    """Return `rows` sales from January 2006 to July 2010, one a row: the same ones for the same seed.

    Areas are square feet, LotFrontage is feet, SalePrice is US dollars. Missing values are NaN: of Alley, Bsmt*,
    FireplaceQu, Garage* and Fence they say that the house has none, of LotFrontage and MasVnr* that nobody knows.
    """
    rng = np.random.default_rng(seed)
    houses = _houses(rng, rows)
    # Heavy tails: most sales are near the going price, a few are far from it.
    log_price = _log_price(houses) + 0.085 * rng.standard_t(6, rows)
    return houses.assign(SalePrice=(100 * np.round(np.exp(log_price) / 100)).astype("int64"))


def _houses(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    """Return the houses without their price: how well a house is finished, and its age, run through all it has."""

    def noise(scale: float) -> NDArray[np.float64]:
        return rng.normal(0, scale, rows)

    def chance(probability: float | NDArray[np.float64]) -> NDArray[np.bool_]:
        return rng.random(rows) < probability

    def pick(words: str, shares: Sequence[float]) -> NDArray[np.str_]:
        return rng.choice(words.split(), rows, p=np.array(shares) / np.sum(shares))

    def area(present: ArrayLike, typical: float) -> NDArray[np.int64]:
        return np.where(present, typical * np.exp(noise(0.5)), 0).astype("int64")

    season = np.resize(SEASON, 55)
    month = rng.choice(55, rows, p=season / season.sum())
    sold = 2006 + month // 12
    places = pd.DataFrame.from_dict(NEIGHBORHOODS, orient="index", columns=["share", "year", "lot", "level", "zoning"])
    neighborhood = rng.choice(places.index, rows, p=places["share"] / places["share"].sum())
    place = places.loc[neighborhood].reset_index(drop=True)

    year = place["year"] + (3 + (2006 - place["year"]).clip(0) / 5) * noise(1)
    built = year.clip(1875, sold).astype("int64").to_numpy()
    remodelled = np.maximum(built, np.where(chance(0.45), rng.integers(1950, sold + 1), 1950))
    era = (built - 1970) / 30
    finish = (2.5 * place["level"] + 0.45 * era + noise(0.7)).to_numpy()
    fresh = finish + (remodelled - 1985) / 40 + noise(0.4)

    terrace = place["lot"].to_numpy() < 4_000
    building = np.where(terrace, pick("TwnhsE Twnhs", (0.7, 0.3)), pick("1Fam Duplex 2fmCon", (0.94, 0.035, 0.025)))
    style = np.select(
        [(built < 1946) & chance(0.4), chance(0.33), (abs(built - 1970) < 15) & chance(0.25)],
        ["1.5Fin", "2Story", pick("SLvl SFoyer", (0.65, 0.35))],
        "1Story",
    )
    upstairs = np.isin(style, ["1.5Fin", "2Story"])
    dwelling = np.select(
        [terrace, building == "Duplex", building == "2fmCon", style == "SLvl", style == "SFoyer", style == "1.5Fin"],
        [np.where(upstairs, 160, 120), 90, 190, 80, 85, 50],
        np.where(upstairs, np.where(built < 1946, 70, 60), np.where(built < 1946, 30, 20)),
    )
    living = np.exp(7.17 + 0.13 * finish + 0.24 * upstairs - 0.1 * terrace + noise(0.2)).astype("int64")
    first = (living * np.where(style == "2Story", 0.52, np.where(style == "1.5Fin", 0.65, 1.0))).astype("int64")
    lot = (place["lot"] * np.exp(noise(0.25))).astype("int64").to_numpy()

    basement = chance(0.975)
    below = np.where(basement, first * rng.uniform(0.85, 1.0, rows), 0).astype("int64")
    finished = np.where(chance(0.68), below * rng.uniform(0.2, 0.95, rows), 0).astype("int64")
    garage = chance(0.94)
    cars = np.where(garage, 1 + np.digitize(0.7 * finish + 0.5 * era + noise(0.5), (-0.6, 1.1)), 0)
    fireplaces = np.digitize(finish + (living - 1_450) / 900 + noise(0.8), (0.1, 1.7, 3.8))
    veneer = np.where(chance(0.25 + 0.12 * (finish > 0)), pick("BrkFace Stone BrkCmn", (0.76, 0.21, 0.03)), "None")
    bedrooms = 1 + np.digitize(living + noise(250), (800, 1_250, 2_100, 3_000))
    partial = (built >= sold - 1) & chance(0.75)

    houses = pd.DataFrame(
        {
            "Id": np.arange(1, rows + 1),
            "MSSubClass": dwelling,
            "MSZoning": np.where(
                (neighborhood == "IDOTRR") & chance(0.2), "C (all)", np.where(chance(0.01), "RH", place["zoning"])
            ),
            "LotFrontage": np.round(0.7 * np.sqrt(lot) * np.exp(noise(0.15))),
            "LotArea": lot,
            "Alley": pick("Grvl Pave", (0.55, 0.45)),
            "Neighborhood": neighborhood,
            "Condition1": pick("Norm Feedr Artery PosN RRAn", (0.87, 0.06, 0.03, 0.02, 0.02)),
            "BldgType": building,
            "HouseStyle": style,
            "OverallQual": np.clip(np.round(6.1 + 1.5 * finish), 1, 10).astype("int64"),
            "OverallCond": np.where(built >= 2000, 5, np.clip(np.round(5.8 + noise(1.1)), 1, 9)).astype("int64"),
            "YearBuilt": built,
            "YearRemodAdd": remodelled,
            "Exterior1st": np.where(
                built > 1985,
                pick("VinylSd CemntBd HdBoard BrkFace", (0.83, 0.10, 0.04, 0.03)),
                pick("MetalSd HdBoard VinylSd BrkFace Stucco WdShing", (0.28, 0.26, 0.33, 0.06, 0.04, 0.03)),
            ),
            "MasVnrType": veneer,
            "MasVnrArea": area(veneer != "None", 200).astype("float64"),
            "ExterQual": _grade("Fa TA Gd Ex", finish + noise(0.3), (-1.9, 0.3, 1.6)),
            "Foundation": np.select(
                [~basement, built > 1990, built > 1942], ["Slab", "PConc", "CBlock"], pick("BrkTil PConc", (0.7, 0.3))
            ),
            "BsmtQual": _grade("Fa TA Gd Ex", finish + era + noise(0.4), (-2.6, 0.1, 2.2)),
            "BsmtExposure": pick("No Mn Av Gd", (0.67, 0.08, 0.15, 0.10)),
            "BsmtFinType1": np.where(
                finished == 0, "Unf", _grade("LwQ Rec BLQ ALQ GLQ", finish + era + noise(0.9), (-2.0, -1.0, -0.4, 0.3))
            ),
            "BsmtFinSF1": finished,
            "BsmtUnfSF": below - finished,
            "TotalBsmtSF": below,
            "HeatingQC": _grade("Po Fa TA Gd Ex", fresh + era + noise(0.6), (-5.5, -2.5, -0.7, 0.1)),
            "CentralAir": np.where(chance(np.where(built < 1946, 0.75, 0.98)), "Y", "N"),
            "1stFlrSF": first,
            "2ndFlrSF": living - first,
            "GrLivArea": living,
            "BsmtFullBath": ((finished > 300) & chance(0.65)).astype("int64"),
            "FullBath": 1 + np.digitize(living + 250 * era + noise(200), (1_400, 2_900)),
            "HalfBath": (upstairs & chance(0.7)).astype("int64"),
            "BedroomAbvGr": bedrooms,
            "KitchenAbvGr": np.where(building == "Duplex", 2, 1),
            "KitchenQual": _grade("Fa TA Gd Ex", fresh, (-2.2, 0.1, 1.8)),
            "TotRmsAbvGrd": bedrooms + 2 + np.digitize(living, (1_000, 1_700, 2_500)),
            "Functional": pick("Typ Min1 Min2 Mod Maj1", (0.93, 0.022, 0.022, 0.014, 0.012)),
            "Fireplaces": fireplaces,
            "FireplaceQu": _grade("Po Fa TA Gd Ex", finish + noise(0.6), (-1.3, -0.8, 0.2, 1.8)),
            "GarageType": np.where(
                built < 1946, pick("Detchd Attchd", (0.85, 0.15)), pick("Attchd BuiltIn Detchd", (0.78, 0.08, 0.14))
            ),
            "GarageYrBlt": np.where(chance(0.8), built, rng.integers(built, sold + 1)).astype("float64"),
            "GarageFinish": _grade("Unf RFn Fin", finish + era + noise(0.7), (0.0, 0.9)),
            "GarageCars": cars,
            "GarageArea": (cars * (250 + noise(30))).astype("int64"),
            "WoodDeckSF": area(chance(0.48), 160),
            "OpenPorchSF": area(chance(0.55), 60),
            "EnclosedPorch": area(chance(np.where(built < 1946, 0.4, 0.05)), 130),
            "ScreenPorch": area(chance(0.08), 180),
            "Fence": pick("MnPrv GdPrv GdWo MnWw", (0.56, 0.21, 0.19, 0.04)),
            "MoSold": 1 + month % 12,
            "YrSold": sold,
            "SaleType": np.where(partial, "New", pick("WD COD ConLD", (0.95, 0.04, 0.01))),
            "SaleCondition": np.where(
                partial, "Partial", pick("Normal Abnorml Family Alloca", (0.90, 0.075, 0.015, 0.01))
            ),
        }
    )
    missing = {
        ("BsmtQual", "BsmtExposure", "BsmtFinType1"): ~basement,
        ("GarageType", "GarageYrBlt", "GarageFinish"): ~garage,
        ("FireplaceQu",): fireplaces == 0,
        ("Alley",): chance(0.94),
        ("Fence",): chance(0.81),
        ("LotFrontage",): chance(0.18),
        ("MasVnrType", "MasVnrArea"): chance(0.006),
    }
    for columns, absent in missing.items():
        houses.loc[absent, list(columns)] = np.nan
    return houses


def _log_price(houses: pd.DataFrame) -> pd.Series:
    """Return the log of the going price in USD: what the neighbourhood, size, age and finish of a house are worth."""
    level = houses["Neighborhood"].map({code: level for code, (_, _, _, level, _) in NEIGHBORHOODS.items()})
    words = sum(houses[column].map(worth).fillna(0.0) for column, worth in WORTH.items())
    age = houses["YrSold"] - houses["YearBuilt"]
    return (
        12.06
        + level
        + words
        + 0.06 * (houses["OverallQual"] - 6)
        + 0.045 * (houses["OverallCond"] - 5.5)
        + (0.38 + 0.6 * level) * np.log(houses["GrLivArea"] / 1_450)
        + 0.08 * np.log(houses["LotArea"] / 9_500)
        + 0.12 * (houses["TotalBsmtSF"] / 1_000 - 1)
        + 0.08 * houses["BsmtFinSF1"] / 1_000
        - 0.0022 * np.minimum(age, 45)
        - 0.0008 * (houses["YrSold"] - houses["YearRemodAdd"] - 20)
        + 0.03 * houses["GarageCars"]
        + 0.03 * houses["Fireplaces"]
        + 0.02 * (houses["FullBath"] + houses["BsmtFullBath"])
        - 0.01 * (houses["YrSold"] - 2008)
    )


def _grade(words: str, latent: NDArray[np.float64], cuts: Sequence[float]) -> NDArray[np.str_]:
    """Return the word for each latent value: the first below the first cut, the last above the last cut."""
    return np.array(words.split())[np.digitize(latent, cuts)]
