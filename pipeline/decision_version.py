"""The number that stands for all code of evergreen that decides what a model is and whether it passes.

Raise it by one when a change to evergreen makes the same rows, spec and packages give another model or another
verdict: in the split, the folds, training, the metrics, the gate, the artifact or the compiler. Every model is then
trained again once. Leave it alone when code is reworded, reformatted, moved or made faster, and computes the same.

`tests/pipeline/test_decision_version.py` holds the folds, metrics, verdict and plan of a fixed table as constants. When
it fails, the change decides: raise the number, and update the constants with it.
"""

DECISION_VERSION = 1
