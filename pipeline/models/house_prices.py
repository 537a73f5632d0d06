"""House prices: what a house in Ames, Iowa will sell for.

The columns are those of House Prices: Advanced Regression Techniques, after De Cock, "Ames, Iowa: Alternative to the
Boston Housing Data as an End of Semester Regression Project", Journal of Statistics Education 19(3), 2011.
"""

import numpy as np
from feature_engine.creation import MathFeatures, RelativeFeatures
from feature_engine.imputation import ArbitraryNumberImputer, CategoricalImputer, MeanMedianImputer
from feature_engine.outliers import Winsorizer
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.ensemble import GradientBoostingRegressor, VotingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Lasso
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, PowerTransformer, StandardScaler
from sklearn.svm import SVR

from pipeline.models import _ames as ames
from pipeline.sources import Function
from pipeline.spec import BusinessValue, Cron, Gate, ModelSpec, Regression

# Numbers: a missing area or count says that there is none; a missing measure or year, that nobody knows it.
AREAS = ("TotalBsmtSF", "BsmtFinSF1", "GarageArea", "WoodDeckSF", "OpenPorchSF", "EnclosedPorch", "ScreenPorch")
COUNTS = ("BsmtFullBath", "FullBath", "HalfBath", "BedroomAbvGr", "KitchenAbvGr", "Fireplaces", "GarageCars")
MEASURES = ("GrLivArea", "LotArea", "LotFrontage", "OverallQual", "OverallCond")
YEARS = ("YrSold", "YearBuilt", "YearRemodAdd")

# Words with an order, worst first; `None` stands for a missing one where that says that there is none.
QUALITY = ("Po", "Fa", "TA", "Gd", "Ex")
ORDERED = {
    "ExterQual": QUALITY,
    "KitchenQual": QUALITY,
    "HeatingQC": QUALITY,
    "BsmtQual": ("None", *QUALITY),
    "FireplaceQu": ("None", *QUALITY),
    "BsmtExposure": ("None", "No", "Mn", "Av", "Gd"),
    "BsmtFinType1": ("None", "Unf", "LwQ", "Rec", "BLQ", "ALQ", "GLQ"),
    "GarageFinish": ("None", "Unf", "RFn", "Fin"),
    "Functional": ("Sal", "Sev", "Maj2", "Maj1", "Mod", "Min2", "Min1", "Typ"),
    "CentralAir": ("N", "Y"),
}
# Words without one.
PLACE = ("Neighborhood", "MSZoning", "Condition1")
BUILDING = ("BldgType", "HouseStyle", "Exterior1st", "Foundation", "GarageType")
DEAL = ("SaleCondition",)

# Words that are missing where there is no basement, fireplace or garage.
HAS_NONE = ("BsmtQual", "BsmtExposure", "BsmtFinType1", "FireplaceQu", "GarageFinish", "GarageType")

TOTALS = {
    "TotalSF": ("GrLivArea", "TotalBsmtSF"),
    "Baths": ("FullBath", "BsmtFullBath", "HalfBath"),
    "PorchSF": ("WoodDeckSF", "OpenPorchSF", "EnclosedPorch", "ScreenPorch"),
}
AGES = ("YrSold_sub_YearBuilt", "YrSold_sub_YearRemodAdd")


def features() -> Pipeline:
    """Return the steps, not yet fitted, that turn a frame of features into a matrix of numbers on one scale."""
    numbers = [*AREAS, *COUNTS, *MEASURES, *TOTALS, *AGES, "QualitySF"]
    # An unknown word becomes NaN, and then the typical rank; rare and unknown words share one column.
    rank = OrdinalEncoder(categories=[*ORDERED.values()], handle_unknown="use_encoded_value", unknown_value=np.nan)
    one_hot = OneHotEncoder(min_frequency=10, handle_unknown="infrequent_if_exist", sparse_output=False)
    return make_pipeline(
        CategoricalImputer(fill_value="None", variables=[*HAS_NONE], ignore_format=True),
        ArbitraryNumberImputer(arbitrary_number=0, variables=[*AREAS, *COUNTS]),
        MeanMedianImputer(variables=[*MEASURES, *YEARS]),
        *(MathFeatures([*parts], func="sum", new_variables_names=[total]) for total, parts in TOTALS.items()),
        MathFeatures(["OverallQual", "TotalSF"], func="prod", new_variables_names=["QualitySF"]),
        RelativeFeatures(["YrSold"], reference=["YearBuilt", "YearRemodAdd"], func=["sub"]),
        # A few huge houses sold unfinished, at half their worth. Capped, they cannot tilt the line for all others.
        Winsorizer("quantiles", tail="right", fold=0.003, variables=["LotArea", "GrLivArea", "TotalSF", "QualitySF"]),
        make_column_transformer(
            (PowerTransformer(), numbers),
            (make_pipeline(rank, SimpleImputer(strategy="median"), StandardScaler()), [*ORDERED]),
            (one_hot, [*PLACE, *BUILDING, *DEAL]),
        ),
    )


def on_log_price(regressor: RegressorMixin) -> TransformedTargetRegressor:
    """Return a candidate that learns the log of the price, so that an error is a share of it, and answers in USD."""
    return TransformedTargetRegressor(make_pipeline(features(), regressor), func=np.log, inverse_func=np.exp)


def lost_per_sale(y_true: NDArray[np.float64], y_pred: NDArray[np.float64]) -> float:
    """Return what sellers lose per house, in USD, when they ask the predicted price.

    All of what they ask too little, and a tenth of what they ask too much: the house stands empty for longer.
    """
    return float(np.mean(np.where(y_pred < y_true, y_true - y_pred, 0.1 * (y_pred - y_true))))


# The lasso selects as it fits: features that do not help get weight 0.
lasso = Lasso(alpha=5e-4, max_iter=20_000)
kernel = SVR(C=1.0, epsilon=0.03, gamma=0.0015)
boosting = GradientBoostingRegressor(
    n_estimators=1_000,
    learning_rate=0.04,
    max_depth=3,
    max_features="sqrt",
    min_samples_leaf=5,
    subsample=0.7,
    random_state=0,
)

spec = ModelSpec(
    name="house_prices",
    source=Function(ames.market, na_values=("NA", "")),
    key=("Id",),
    target="SalePrice",
    task=Regression(unit="USD"),
    features=(*MEASURES, *AREAS, *COUNTS, *YEARS, *ORDERED, *PLACE, *BUILDING, *DEAL),
    required=("GrLivArea", "OverallQual", "LotArea"),
    candidates={
        "lasso": on_log_price(lasso),
        "boosting": on_log_price(boosting),
        "blend": on_log_price(VotingRegressor([("lasso", lasso), ("kernel", kernel), ("boosting", boosting)])),
    },
    metric="rmsle",
    gate=Gate(at_most=0.16, tolerance=0.005, slices=("Neighborhood",), slice_tolerance=0.02),
    value=BusinessValue(function=lost_per_sale, unit="USD per sale"),
    schedule=Cron("0 3 * * 1", timezone="America/Chicago"),
)
