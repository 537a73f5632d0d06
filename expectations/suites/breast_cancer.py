"""Good biopsies: thirty measurements of cell nuclei, and what the tumour turned out to be."""

from great_expectations import expectations as gxe

from expectations.suite import Suite

# Far above any nucleus measured, far below what another unit or a column in the wrong place would give.
LARGEST = {
    "radius": 100,
    "texture": 200,
    "perimeter": 700,
    "area": 30_000,
    "smoothness": 1,
    "compactness": 5,
    "concavity": 5,
    "concave points": 1,
    "symmetry": 1,
    "fractal dimension": 1,
}
# Each is told three times: its mean over the nuclei, the standard error of that, and the mean of the three largest.
FEATURES = {
    f"{before}{name}{after}": largest
    for before, after in (("mean ", ""), ("", " error"), ("worst ", ""))
    for name, largest in LARGEST.items()
}

suite = Suite(
    error=[
        # One row is one biopsy, and there are enough of them to learn from and to judge by.
        gxe.ExpectTableRowCountToBeBetween(min_value=100),
        gxe.ExpectColumnValuesToNotBeNull(column="id"),
        gxe.ExpectColumnValuesToBeUnique(column="id"),
        # Each diagnosis is known, is spelled so, and occurs.
        gxe.ExpectColumnValuesToBeInTypeList(column="diagnosis", type_list=["str"]),
        gxe.ExpectColumnValuesToNotBeNull(column="diagnosis"),
        gxe.ExpectColumnDistinctValuesToEqualSet(column="diagnosis", value_set=["malignant", "benign"]),
        # A measurement is made or the biopsy is not in the table.
        *(gxe.ExpectColumnValuesToNotBeNull(column=name) for name in FEATURES),
        *(
            gxe.ExpectColumnValuesToBeBetween(column=name, min_value=0, max_value=largest)
            for name, largest in FEATURES.items()
        ),
        # The three largest are no smaller than the mean, unless columns were swapped.
        *(
            gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A=worst, column_B=mean, or_equal=True)
            for worst, mean in ((f"worst {name}", f"mean {name}") for name in LARGEST)
        ),
    ],
    warn=[
        # The usual nucleus: a shift here is a change of unit, of scope, or of the microscope.
        gxe.ExpectColumnMedianToBeBetween(column="mean radius", min_value=10, max_value=18),
        gxe.ExpectColumnMedianToBeBetween(column="mean texture", min_value=13, max_value=25),
    ],
)
