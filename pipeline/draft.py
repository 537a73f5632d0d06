"""A profile -> a first spec, written as Python for a person to edit."""

from collections.abc import Sequence
from datetime import timedelta
from math import floor, log10
from pathlib import Path

from pipeline.layout import block, comment, imports, literal, names
from pipeline.numbers import number
from pipeline.profile import Column, Profile, Role
from pipeline.sources import Csv

GROUPS: dict[str, tuple[tuple[Role, ...], str]] = {
    "NUMBERS": (("number", "boolean"), "Numbers, and what is true or false."),
    "SKEWED": (("skewed",), "Numbers with a long tail."),
    "PLACE": (("place",), "Where it is: latitude and longitude."),
    "CATEGORIES": (("category",), "Categories, few enough for a column each."),
    "MANY": (
        ("many",),
        "Categories too many for a column each: what the target is like where each occurs stands for it.",
    ),
    "DATES": (("date",), "Dates; a model is given parts of them."),
    "WRITTEN": (("written date",), "Dates that are written as words."),
    "TEXTS": (("text",), "Free text, as a bag of words."),
}
SHOWN = 40
"""Up to so many features, each has a line of its own with what was found."""
BLENDED = 20_000
"""Up to so many rows, a blend of the other candidates is one, too."""


def spec_source(profile: Profile, name: str, path: str) -> str:
    """Return the module of the model's spec, reading its rows from `path`."""
    groups = {title: profile.named(*roles) for title, (roles, _) in GROUPS.items()}
    groups = {title: members for title, members in groups.items() if members}
    body = [
        *_groups(profile, groups),
        *_for_lines(profile, groups),
        "",
        "",
        *_for_trees(profile, groups),
        "",
        "",
        *_candidates(profile),
        "",
        *_spec(profile, groups, name, path),
    ]
    return "\n".join([*_head(profile, name, path), "", *_imports(body), "", *body]) + "\n"


def _head(profile: Profile, name: str, path: str) -> list[str]:
    what = "will be" if profile.kind == "regression" else "is"
    file = Path(path).name.replace("\\", "/").replace('"', "'")
    target = profile.target.name.replace("\\", "/").replace('"', "'")
    lines = [f'"""{name.replace("_", " ").capitalize()}: what {target} {what}.'[:120], ""]
    lines += [f"A first spec, made by `evergreen init` of {profile.rows:,} rows of {file}; edit it, it is yours."[:120]]
    return [*lines, '"""']


def _groups(profile: Profile, groups: dict[str, tuple[str, ...]]) -> list[str]:
    by_name = {column.name: column for column in profile.features}
    lines: list[str] = []
    for title, members in groups.items():
        columns = [by_name[name] for name in members]
        lines += comment(_summary(GROUPS[title][1], columns))
        if len(by_name) <= SHOWN:
            lines += [f"{title} = (", *(_member(column) for column in columns), ")"]
        else:
            lines += names(title, members)
    if profile.left_out:
        said = "; ".join(f"{name!r} {why}" for name, why in [*profile.left_out.items()][:10])
        more = f"; and {len(profile.left_out) - 10} more" if len(profile.left_out) > 10 else ""
        lines += comment(f"Left out: {said}{more}.")
    return [*lines, "", ""]


def _summary(title: str, columns: Sequence[Column]) -> str:
    most = max(columns, key=lambda column: column.nulls)
    if (len(columns) <= SHOWN and len(columns) == 1) or not most.nulls:
        return title
    count = sum(column.nulls > 0 for column in columns)
    return f"{title} {count} of {len(columns)} with nulls, at most {_share(most.nulls)}, in {most.name!r}."


def _member(column: Column) -> str:
    line = f"    {literal(column.name)},  # {facts(column)}"
    return line if len(line) <= 120 else f"    {literal(column.name)},"


def facts(column: Column) -> str:
    """Say in a few words what was found in a column."""
    if column.quantiles and column.role not in ("category", "many"):
        said = f"{_plain(column.low)} to {_plain(column.high)}, median {_plain(column.quantiles[2])}"
    elif column.first and column.last:
        said = f"{column.first:%Y-%m-%d} to {column.last:%Y-%m-%d}"
    elif column.role == "written date":
        said = column.form
    else:
        said = f"{column.distinct:,} values"
    return said + (f", {_share(column.nulls)} null" if column.nulls else "")


def _plain(value: float) -> str:
    return str(int(value)) if value.is_integer() and 1_000 <= abs(value) < 3_000 else number(value)


def _share(value: float) -> str:
    return "under 0.1%" if 0 < value < 0.001 else f"{100 * value:.1f}%"


def _nullable(profile: Profile, members: Sequence[str]) -> bool:
    return any(column.nulls for column in profile.features if column.name in members)


def _target_type(profile: Profile) -> str:
    return {"regression": "continuous"}.get(profile.kind, profile.kind)


def _parts(profile: Profile, dates: Sequence[str]) -> list[str]:
    """Return the parts of dates that tell rows apart: those that come back within the time that the table covers."""
    columns = [column for column in profile.features if column.name in dates]
    spans = [column.last - column.first for column in columns if column.first and column.last]
    span = max(spans, default=timedelta(days=800))
    parts = ["year"] if span > timedelta(days=730) else []
    parts += ["month"] if span > timedelta(days=365) else []
    parts += ["day_of_week"]
    return parts + (["hour"] if any(column.clock for column in columns) else [])


def _dates(profile: Profile, groups: dict[str, tuple[str, ...]], wrapped: str) -> list[str]:
    """Return the column transformer's lines for dates; `wrapped` has the place of the step that makes their parts."""
    lines = []
    if "DATES" in groups:
        parts = literal(_parts(profile, groups["DATES"]))
        lines += _step(
            wrapped.format(f'DatetimeFeatures(features_to_extract={parts}, missing_values="ignore")'), "[*DATES]"
        )
    by_form: dict[str, list[str]] = {}
    for column in profile.features:
        if column.role == "written date":
            by_form.setdefault(column.form, []).append(column.name)
    for form, members in by_form.items():
        few = "[*WRITTEN]" if len(by_form) == 1 else literal(members)
        arguments = [few, literal(_parts(profile, members)), 'missing_values="ignore"', f"format={literal(form)}"]
        lines += _step(wrapped.format(f"DatetimeFeatures({', '.join(arguments)})"), few)
    return lines


def _step(step: str, columns: str) -> list[str]:
    """Return one item of a column transformer, its inner calls on lines of their own where it is too long."""
    one = f"        ({step}, {columns}),"
    if len(one) <= 120:
        return [one]
    inner = f"            {step},"
    if len(inner) > 120 and step.startswith("make_pipeline("):
        head, _, rest = step.removesuffix(")").removeprefix("make_pipeline(").rpartition("), ")
        inner = "\n".join(
            ["            make_pipeline(", f"                {head}),", f"                {rest},", "            ),"]
        )
    return ["        (", *inner.split("\n"), f"            {columns},", "        ),"]


def _for_lines(profile: Profile, groups: dict[str, tuple[str, ...]]) -> list[str]:
    steps: list[str] = []
    for title, scaler in (("NUMBERS", "StandardScaler()"), ("SKEWED", "PowerTransformer()")):
        if title in groups:
            flag = ", add_indicator=True" if _nullable(profile, groups[title]) else ""
            steps += _step(f'make_pipeline(SimpleImputer(strategy="median"{flag}), {scaler})', f"[*{title}]")
    if "PLACE" in groups:
        # Of squares and products the distance to any place is made.
        steps += ["        # The squared distance to any one place is a sum of these and their squares."]
        square = (
            'make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), PolynomialFeatures(include_bias=False))'
        )
        steps += _step(square, "[*PLACE]")
    if "CATEGORIES" in groups:
        steps += ["        # Rare and never-seen words share one column."]
        steps += _step(_one_hot(profile), "[*CATEGORIES]")
    if "MANY" in groups:
        encoder = f'make_pipeline(TargetEncoder(target_type="{_target_type(profile)}"), StandardScaler())'
        steps += _step(encoder, "[*MANY]")
    steps += _dates(profile, groups, 'make_pipeline({}, OneHotEncoder(handle_unknown="ignore", sparse_output=False))')
    for text in groups.get("TEXTS", ()):
        steps += _step("TfidfVectorizer(min_df=3, max_features=5_000)", literal(text))
    return [
        *_definition(groups, "for_lines"),
        '    """Return the steps, not yet fitted, for a model that adds up: all filled, all on one scale."""',
        *_returned(groups, steps),
    ]


def _one_hot(profile: Profile) -> str:
    least = max(5, min(100, profile.rows // 200))
    return f'OneHotEncoder(min_frequency={least}, handle_unknown="infrequent_if_exist", sparse_output=False)'


def _for_trees(profile: Profile, groups: dict[str, tuple[str, ...]]) -> list[str]:
    steps: list[str] = []
    as_they_are = [f"*{title}" for title in ("NUMBERS", "SKEWED", "PLACE") if title in groups]
    if as_they_are:
        steps += [f'        ("passthrough", [{", ".join(as_they_are)}]),']
    if "CATEGORIES" in groups:
        encoder = 'OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)'
        steps += _step(encoder, "[*CATEGORIES]")
    if "MANY" in groups:
        steps += _step(f'TargetEncoder(target_type="{_target_type(profile)}")', "[*MANY]")
    steps += _dates(profile, groups, "{}")
    for text in groups.get("TEXTS", ()):
        steps += _step("make_pipeline(TfidfVectorizer(min_df=3), TruncatedSVD(30))", literal(text))
    return [
        *_definition(groups, "for_trees"),
        '    """Return the steps, not yet fitted, for trees, which need no scale and take missing numbers."""',
        *_returned(groups, steps),
    ]


def _definition(groups: dict[str, tuple[str, ...]], name: str) -> list[str]:
    return [f"def {name}() -> {'Pipeline' if 'TEXTS' in groups else 'ColumnTransformer'}:"]


def _returned(groups: dict[str, tuple[str, ...]], steps: list[str]) -> list[str]:
    if "TEXTS" not in groups:
        return ["    return make_column_transformer(", *steps, "    )"]
    imputer = '        CategoricalImputer(fill_value="", variables=[*TEXTS], ignore_format=True),'
    inner = [f"    {step}" for step in steps]
    return ["    return make_pipeline(", imputer, "        make_column_transformer(", *inner, "        ),", "    )"]


def _candidates(profile: Profile) -> list[str]:
    regression = profile.kind == "regression"
    rate = "max_iter=300, learning_rate=0.05" if profile.rows > 1_000 else "max_iter=150, learning_rate=0.06"
    leaves = 31 if profile.rows > 50_000 else 15 if profile.rows > 1_000 else 8
    kind = "Regressor" if regression else "Classifier"
    trees = f"HistGradientBoosting{kind}({rate}, max_leaf_nodes={leaves}, random_state=0)"
    if regression:
        texts = profile.named("text")
        linear, model = ("ridge", "Ridge(alpha=3.0)" if texts else "RidgeCV(alphas=np.logspace(-1, 3, 9))")
    else:
        linear, model = ("logistic", "LogisticRegression(C=0.5, max_iter=1_000)")
    lines = []
    if profile.log:
        lines += [
            "def on_log(regressor: RegressorMixin) -> TransformedTargetRegressor:",
            '    """Return a candidate that learns the logarithm of the target, so that an error is a share of it."""',
            "    return TransformedTargetRegressor(regressor, func=np.log, inverse_func=np.exp)",
            "",
            "",
        ]
    lines += block(f"{linear} = make_pipeline(", ["for_lines()", model], ")")
    lines += block("boosting = make_pipeline(", ["for_trees()", trees], ")")
    if profile.rows <= BLENDED:
        soft = "" if regression else ', voting="soft"'
        lines += [f'blend = Voting{kind}([("{linear}", {linear}), ("boosting", boosting)]{soft})']
    return lines


def _spec(profile: Profile, groups: dict[str, tuple[str, ...]], name: str, path: str) -> list[str]:
    found = ["ridge" if profile.kind == "regression" else "logistic", "boosting"]
    found += ["blend"] if profile.rows <= BLENDED else []
    wrapped = {one: f"on_log({one})" if profile.log else one for one in found}
    task = {
        "regression": "Regression()",
        "binary": f"BinaryClassification(positive={literal(profile.positive)})",
        "multiclass": "MulticlassClassification()",
    }[profile.kind]
    metric, gate, why = _gate(profile)
    lines = ["spec = ModelSpec(", f"    name={literal(name)},", *_source(profile, path)]
    if not profile.key:
        lines += ["    # No column tells one row from another: all features together do."]
    lines += [
        f"    key={literal((profile.key,) if profile.key else ())},",
        f"    target={literal(profile.target.name)},",
    ]
    lines += [f"    task={task},"]
    several = len(groups) > 1
    lines += [
        f"    features={'(' + ', '.join(f'*{title}' for title in groups) + ')' if several else next(iter(groups))},"
    ]
    if profile.time:
        lines += ["    # The newest rows are held out, since it is the next ones that are to be predicted."]
        lines += [f"    time={literal(profile.time)},"]
    if profile.group:
        lines += ["    # Rows of one group are held out together, or those that were trained on would give them away."]
        lines += [f"    group={literal(profile.group)},"]
    lines += ["    candidates={" + ", ".join(f'"{one}": {said}' for one, said in wrapped.items()) + "},"]
    lines += [f'    metric="{metric}",', *comment(why, 4), f"    gate={gate},", ")"]
    return lines


def _source(profile: Profile, path: str) -> list[str]:
    source = profile.source
    options = []
    if source.nulls != ("",):
        options.append(f"nulls={literal(source.nulls)}")
    if source.types:
        types = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in source.types.items())
        options.append(f"types={{{types}}}")
    if isinstance(source, Csv):
        for name, usual in (("separator", ","), ("decimal", "."), ("encoding", "utf-8")):
            if getattr(source, name) != usual:
                options.append(f"{name}={literal(getattr(source, name))}")
    lines = block(f"source={type(source).__name__}(", [literal(path), *options], ")", indent=4)
    return [*lines[:-1], lines[-1] + ","]


def _gate(profile: Profile) -> tuple[str, str, str]:
    """Return the metric, the gate, and the reason for its threshold."""
    guess = profile.guess
    if profile.kind == "binary":
        why = "A coin's ROC AUC is 0.5; less than 0.55 is hardly more. Raise it to what you would not go below."
        return "roc_auc", "Gate(at_least=0.55, tolerance=0.01)", why
    if profile.kind == "multiclass":
        bound = _rounded(guess + 0.1 * (1 - guess))
        why = (
            f"Always saying the most frequent class is right in {_share(guess)} of the rows; a model that errs not "
            "even a tenth less often has learned nothing. Raise it to what you would not go below."
        )
        return "accuracy", f"Gate(at_least={literal(bound)}, tolerance=0.02)", why
    metric = "rmsle" if profile.log else "rmse"
    why = (
        f"Always saying the mean has an error of {number(guess)}; a model whose error is not even 5% less has learned "
        "nothing. Lower it to what you would not go above. The tolerance is 2% of that."
    )
    gate = f"Gate(at_most={literal(_rounded(0.95 * guess))}, tolerance={literal(_rounded(0.02 * guess, 1))})"
    return metric, gate, why


def _rounded(value: float, digits: int = 3) -> float:
    return round(value, digits - 1 - floor(log10(abs(value)))) if value else 0.0


_WHERE = {
    "CategoricalImputer": "feature_engine.imputation",
    "DatetimeFeatures": "feature_engine.datetime",
    "RegressorMixin": "sklearn.base",
    "ColumnTransformer": "sklearn.compose",
    "TransformedTargetRegressor": "sklearn.compose",
    "make_column_transformer": "sklearn.compose",
    "TruncatedSVD": "sklearn.decomposition",
    "HistGradientBoostingClassifier": "sklearn.ensemble",
    "HistGradientBoostingRegressor": "sklearn.ensemble",
    "VotingClassifier": "sklearn.ensemble",
    "VotingRegressor": "sklearn.ensemble",
    "TfidfVectorizer": "sklearn.feature_extraction.text",
    "SimpleImputer": "sklearn.impute",
    "LogisticRegression": "sklearn.linear_model",
    "Ridge": "sklearn.linear_model",
    "RidgeCV": "sklearn.linear_model",
    "Pipeline": "sklearn.pipeline",
    "make_pipeline": "sklearn.pipeline",
    "OneHotEncoder": "sklearn.preprocessing",
    "OrdinalEncoder": "sklearn.preprocessing",
    "PolynomialFeatures": "sklearn.preprocessing",
    "PowerTransformer": "sklearn.preprocessing",
    "StandardScaler": "sklearn.preprocessing",
    "TargetEncoder": "sklearn.preprocessing",
    "Csv": "pipeline.sources",
    "Parquet": "pipeline.sources",
    "BinaryClassification": "pipeline.spec",
    "Gate": "pipeline.spec",
    "ModelSpec": "pipeline.spec",
    "MulticlassClassification": "pipeline.spec",
    "Regression": "pipeline.spec",
}


def _imports(body: Sequence[str]) -> list[str]:
    """Return the imports of what a module's lines use."""
    import ast

    tree = ast.parse("\n".join(body))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    theirs = [(module, name) for name, module in _WHERE.items() if name in used and not module.startswith("pipeline.")]
    ours = [(module, name) for name, module in _WHERE.items() if name in used and module.startswith("pipeline.")]
    return [*(["import numpy as np"] if "np" in used else []), *imports(theirs), "", *imports(ours)]
