"""Good house sales: what an export of them always holds, and what is worth a look when it does not.

Value sets are those of the data dictionary of De Cock (2011) as the data spells them, whether or not a house has them
yet. A null in Bsmt*, Garage* and FireplaceQu says that the house has none; in LotFrontage that nobody knows.
"""

from great_expectations import expectations as gxe

from expectations.suite import Suite

# What a number can be at all. A range also says that the column is there and that it holds numbers.
RANGES = {
    "LotArea": (500, 2_000_000),
    "LotFrontage": (1, 2_000),
    "GrLivArea": (100, 20_000),
    "OverallQual": (1, 10),
    "OverallCond": (1, 10),
    "YearBuilt": (1700, 2100),
    "YearRemodAdd": (1700, 2100),
    "YrSold": (2000, 2100),
    "TotalBsmtSF": (0, 20_000),
    "BsmtFinSF1": (0, 20_000),
    "BsmtFullBath": (0, 10),
    "FullBath": (0, 10),
    "HalfBath": (0, 10),
    "BedroomAbvGr": (0, 20),
    "KitchenAbvGr": (0, 10),
    "Fireplaces": (0, 10),
    "GarageCars": (0, 20),
    "GarageArea": (0, 10_000),
    "WoodDeckSF": (0, 5_000),
    "OpenPorchSF": (0, 5_000),
    "EnclosedPorch": (0, 5_000),
    "ScreenPorch": (0, 5_000),
}

GRADES = ["Ex", "Gd", "TA", "Fa", "Po"]
WORDS = {
    "MSZoning": ["A (agr)", "C (all)", "FV", "I (all)", "RH", "RL", "RM", "RP"],
    "Neighborhood": [
        *("Blmngtn", "Blueste", "BrDale", "BrkSide", "ClearCr", "CollgCr", "Crawfor", "Edwards", "Gilbert", "Greens"),
        *("GrnHill", "IDOTRR", "Landmrk", "MeadowV", "Mitchel", "NAmes", "NoRidge", "NPkVill", "NridgHt", "NWAmes"),
        *("OldTown", "Sawyer", "SawyerW", "Somerst", "StoneBr", "SWISU", "Timber", "Veenker"),
    ],
    "Condition1": ["Artery", "Feedr", "Norm", "PosA", "PosN", "RRAe", "RRAn", "RRNe", "RRNn"],
    "BldgType": ["1Fam", "2fmCon", "Duplex", "Twnhs", "TwnhsE"],
    "HouseStyle": ["1Story", "1.5Fin", "1.5Unf", "2Story", "2.5Fin", "2.5Unf", "SFoyer", "SLvl"],
    "Exterior1st": [
        *("AsbShng", "AsphShn", "BrkComm", "BrkFace", "CBlock", "CemntBd", "HdBoard", "ImStucc", "MetalSd", "Other"),
        *("Plywood", "PreCast", "Stone", "Stucco", "VinylSd", "Wd Sdng", "WdShing"),
    ],
    "ExterQual": GRADES,
    "Foundation": ["BrkTil", "CBlock", "PConc", "Slab", "Stone", "Wood"],
    "BsmtQual": GRADES,
    "BsmtExposure": ["Gd", "Av", "Mn", "No"],
    "BsmtFinType1": ["GLQ", "ALQ", "BLQ", "Rec", "LwQ", "Unf"],
    "HeatingQC": GRADES,
    "CentralAir": ["Y", "N"],
    "KitchenQual": GRADES,
    "Functional": ["Typ", "Min1", "Min2", "Mod", "Maj1", "Maj2", "Sev", "Sal"],
    "FireplaceQu": GRADES,
    "GarageType": ["2Types", "Attchd", "Basment", "BuiltIn", "CarPort", "Detchd"],
    "GarageFinish": ["Fin", "RFn", "Unf"],
    "SaleCondition": ["Normal", "Abnorml", "AdjLand", "Alloca", "Family", "Partial"],
}

# How much of a column is known at least, where not every house has one; of all others nearly everything is.
KNOWN = {
    "LotFrontage": 0.5,
    "BsmtQual": 0.8,
    "BsmtExposure": 0.8,
    "BsmtFinType1": 0.8,
    "GarageType": 0.7,
    "GarageFinish": 0.7,
    "FireplaceQu": 0.2,
}
REQUIRED = ("GrLivArea", "OverallQual", "LotArea")

suite = Suite(
    error=[
        # One row is one sale, and there are enough of them to learn from and to judge by.
        gxe.ExpectTableRowCountToBeBetween(min_value=200),
        gxe.ExpectColumnValuesToNotBeNull(column="Id"),
        gxe.ExpectColumnValuesToBeUnique(column="Id"),
        # The price is known, and in dollars: not in thousands, cents or another currency.
        gxe.ExpectColumnValuesToBeInTypeList(column="SalePrice", type_list=["int64", "float64"]),
        gxe.ExpectColumnValuesToNotBeNull(column="SalePrice"),
        gxe.ExpectColumnValuesToBeBetween(column="SalePrice", min_value=5_000, max_value=10_000_000),
        gxe.ExpectColumnMedianToBeBetween(column="SalePrice", min_value=50_000, max_value=1_000_000),
        # What no model can do without is always there; a gap elsewhere is imputed, a column of gaps is not.
        *(gxe.ExpectColumnValuesToNotBeNull(column=name) for name in REQUIRED),
        *(
            gxe.ExpectColumnValuesToNotBeNull(column=name, mostly=KNOWN.get(name, 0.98))
            for name in (*RANGES, *WORDS)
            if name not in REQUIRED
        ),
        # A house outside of these does not exist.
        *(
            gxe.ExpectColumnValuesToBeBetween(column=name, min_value=low, max_value=high)
            for name, (low, high) in RANGES.items()
        ),
        # A new word now and then is news, which the warnings tell; many of them are another column or coding.
        *(gxe.ExpectColumnValuesToBeInSet(column=name, value_set=words, mostly=0.98) for name, words in WORDS.items()),
    ],
    warn=[
        *(gxe.ExpectColumnValuesToBeInSet(column=name, value_set=words) for name, words in WORDS.items()),
        # Nothing is remodelled before it is built; some sales are of houses not yet finished.
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="YearRemodAdd", column_B="YearBuilt", or_equal=True),
        # The usual house: a shift here is a change of unit, of scope, or of the market.
        gxe.ExpectColumnMedianToBeBetween(column="SalePrice", min_value=100_000, max_value=400_000),
        gxe.ExpectColumnMedianToBeBetween(column="GrLivArea", min_value=1_000, max_value=2_200),
        gxe.ExpectColumnMedianToBeBetween(column="LotArea", min_value=6_000, max_value=15_000),
        gxe.ExpectColumnMedianToBeBetween(column="OverallQual", min_value=4, max_value=8),
    ],
)
