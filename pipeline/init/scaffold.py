"""Writes a first spec from a profile, as Python for a person to edit."""

from collections.abc import Sequence
from datetime import timedelta
from math import floor, log10
from pathlib import Path

from pipeline.format_numbers import format_number
from pipeline.init.profile import ColumnProfile, Profile, Role
from pipeline.init.python_format import Call, block, comment, imports, literal, names
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
MAX_FEATURE_LINES = 40
"""Up to this many features, each has a line of its own with facts about it."""
MAX_BLEND_ROWS = 20_000
"""Up to this many rows, a blend of the other candidates is a candidate too."""


def spec_source(profile: Profile, name: str, path: str) -> str:
    """Return the module of the model's spec, reading its rows from `path`."""
    groups = {title: profile.named(*roles) for title, (roles, _) in GROUPS.items()}
    groups = {title: members for title, members in groups.items() if members}
    body = [
        *_groups(profile, groups),
        *_parser(groups),
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
        if len(by_name) <= MAX_FEATURE_LINES:
            lines += [f"{title} = (", *(_member(column) for column in columns), ")"]
        else:
            lines += names(title, members)
    if profile.left_out:
        said = "; ".join(f"{name!r} {why}" for name, why in [*profile.left_out.items()][:10])
        more = f"; and {len(profile.left_out) - 10} more" if len(profile.left_out) > 10 else ""
        lines += comment(f"Left out: {said}{more}.")
    return [*lines, "", ""]


def _summary(title: str, columns: Sequence[ColumnProfile]) -> str:
    most = max(columns, key=lambda column: column.nulls)
    if (len(columns) <= MAX_FEATURE_LINES and len(columns) == 1) or not most.nulls:
        return title
    count = sum(column.nulls > 0 for column in columns)
    return f"{title} {count} of {len(columns)} with nulls, at most {_share(most.nulls)}, in {most.name!r}."


def _member(column: ColumnProfile) -> str:
    line = f"    {literal(column.name)},  # {facts(column)}"
    return line if len(line) <= 120 else f"    {literal(column.name)},"


def facts(column: ColumnProfile) -> str:
    """Return the facts about a column in a few words."""
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
    return str(int(value)) if value.is_integer() and 1_000 <= abs(value) < 3_000 else format_number(value)


def _share(value: float) -> str:
    return "under 0.1%" if 0 < value < 0.001 else f"{100 * value:.1f}%"


def _nullable(profile: Profile, members: Sequence[str]) -> bool:
    return any(column.nulls for column in profile.features if column.name in members)


def _target_type(profile: Profile) -> str:
    return {"regression": "continuous"}.get(profile.kind, profile.kind)


def _parts(profile: Profile, dates: Sequence[str]) -> str:
    """Return the parts of dates that can matter: those that repeat within the time that the table covers."""
    columns = [column for column in profile.features if column.name in dates]
    spans = [column.last - column.first for column in columns if column.first and column.last]
    span = max(spans, default=timedelta(days=800))
    parts = ["year"] if span > timedelta(days=730) else []
    parts += ["month"] if span > timedelta(days=365) else []
    parts += ["day_of_week"]
    return literal(parts + (["hour"] if any(column.clock for column in columns) else []))


def _dates(profile: Profile, groups: dict[str, tuple[str, ...]], then: str = "") -> list[str | Call]:
    """Return the column transformer's items for dates: their parts, followed by the step `then` if given."""
    items: list[str | Call] = []

    def add(members: Sequence[str], columns: str, before: list[str]) -> None:
        wanted = f"features_to_extract={_parts(profile, members)}"
        parts = Call("DatetimeFeatures(", [wanted, 'missing_values="ignore"'])
        steps: list[str | Call] = [*before, parts, *([then] if then else [])]
        made: str | Call = parts if len(steps) == 1 else Call("make_pipeline(", steps)
        items.append(Call("(", [made, columns]))

    if "DATES" in groups:
        add(groups["DATES"], "[*DATES]", [])
    by_form: dict[str, list[str]] = {}
    for column in profile.features:
        if column.role == "written date":
            by_form.setdefault(column.form, []).append(column.name)
    for form, members in by_form.items():
        columns = "[*WRITTEN]" if len(by_form) == 1 else literal(members)
        add(members, columns, [f'FunctionTransformer(parsed, kw_args={{"format": {literal(form)}}})'])
    return items


def _parser(groups: dict[str, tuple[str, ...]]) -> list[str]:
    if "WRITTEN" not in groups:
        return []
    return [
        "def parsed(frame: pd.DataFrame, format: str) -> pd.DataFrame:",
        '    """Return dates that were written as words; what is none is missing."""',
        '    return frame.apply(pd.to_datetime, format=format, errors="coerce")',
        "",
        "",
    ]


def _for_lines(profile: Profile, groups: dict[str, tuple[str, ...]]) -> list[str]:
    items: list[str | Call] = []
    for title, scaler in (("NUMBERS", "StandardScaler()"), ("SKEWED", "PowerTransformer()")):
        if title in groups:
            flag = ", add_indicator=True" if _nullable(profile, groups[title]) else ""
            items.append(_piped(f'SimpleImputer(strategy="median"{flag})', scaler, columns=f"[*{title}]"))
    if "PLACE" in groups:
        items.append("# The squared distance to any one place is a sum of these and their squares.")
        square = ('SimpleImputer(strategy="median")', "StandardScaler()", "PolynomialFeatures(include_bias=False)")
        items.append(_piped(*square, columns="[*PLACE]"))
    if "CATEGORIES" in groups:
        least = max(5, min(100, profile.rows // 200))
        rare = [f"min_frequency={least}", 'handle_unknown="infrequent_if_exist"', "sparse_output=False"]
        items.append("# Rare and never-seen values share one column.")
        items.append(Call("(", [Call("OneHotEncoder(", rare), "[*CATEGORIES]"]))
    if "MANY" in groups:
        items.append(
            _piped(f'TargetEncoder(target_type="{_target_type(profile)}")', "StandardScaler()", columns="[*MANY]")
        )
    items += _dates(profile, groups, then='OneHotEncoder(handle_unknown="ignore", sparse_output=False)')
    items += [f"(TfidfVectorizer(min_df=3, max_features=5_000), {literal(text)})" for text in groups.get("TEXTS", ())]
    what = "for a model that adds up: all filled, all on one scale"
    return _function("for_lines", what, groups, items)


def _piped(*steps: str, columns: str) -> Call:
    return Call("(", [Call("make_pipeline(", steps), columns])


def _for_trees(profile: Profile, groups: dict[str, tuple[str, ...]]) -> list[str]:
    items: list[str | Call] = []
    as_they_are = [f"*{title}" for title in ("NUMBERS", "SKEWED", "PLACE") if title in groups]
    if as_they_are:
        items.append(f'("passthrough", [{", ".join(as_they_are)}])')
    if "CATEGORIES" in groups:
        items.append('(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan), [*CATEGORIES])')
    if "MANY" in groups:
        items.append(f'(TargetEncoder(target_type="{_target_type(profile)}"), [*MANY])')
    items += _dates(profile, groups)
    items += [f"(TfidfVectorizer(max_features=200), {literal(text)})" for text in groups.get("TEXTS", ())]
    if "TEXTS" in groups:
        items += ["# Trees take no sparse matrix.", "sparse_threshold=0"]
    return _function("for_trees", "for trees, which need no scale and take missing numbers", groups, items)


def _function(name: str, what: str, groups: dict[str, tuple[str, ...]], items: Sequence[str | Call]) -> list[str]:
    """Return a function that makes a column transformer; nulls in free texts are filled before it."""
    kind, indent = ("Pipeline", 8) if "TEXTS" in groups else ("ColumnTransformer", 4)
    lines = [f"def {name}() -> {kind}:", f'    """Return the steps, not yet fitted, {what}."""']
    if indent == 8:
        lines += ["    return make_pipeline("]
        lines += ['        CategoricalImputer(fill_value="", variables=[*TEXTS], ignore_format=True),']
    lines += [" " * indent + ("make_column_transformer(" if indent == 8 else "return make_column_transformer(")]
    for item in items:
        remark = isinstance(item, str) and item.startswith("#")
        lines += block(item, indent + 4, comma="" if remark else ",")
    return [*lines, *(["        ),"] if indent == 8 else []), "    )"]


def _candidates(profile: Profile) -> list[str]:
    regression = profile.kind == "regression"
    rate = ["max_iter=300", "learning_rate=0.05"] if profile.rows > 1_000 else ["max_iter=150", "learning_rate=0.06"]
    leaves = 31 if profile.rows > 50_000 else 15 if profile.rows > 1_000 else 8
    kind = "Regressor" if regression else "Classifier"
    trees = Call(f"HistGradientBoosting{kind}(", [*rate, f"max_leaf_nodes={leaves}", "random_state=0"])
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
    lines += block(Call(f"{linear} = make_pipeline(", ["for_lines()", model]))
    lines += block(Call("boosting = make_pipeline(", ["for_trees()", trees]))
    if profile.rows <= MAX_BLEND_ROWS:
        soft = "" if regression else ', voting="soft"'
        lines += [f'blend = Voting{kind}([("{linear}", {linear}), ("boosting", boosting)]{soft})']
    return lines


def _spec(profile: Profile, groups: dict[str, tuple[str, ...]], name: str, path: str) -> list[str]:
    found = ["ridge" if profile.kind == "regression" else "logistic", "boosting"]
    found += ["blend"] if profile.rows <= MAX_BLEND_ROWS else []
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
    if source.na_values != ("",):
        options.append(f"na_values={literal(source.na_values)}")
    if source.types:
        types = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in source.types.items())
        options.append(f"types={{{types}}}")
    if isinstance(source, Csv):
        for name, usual in (("separator", ","), ("decimal", "."), ("encoding", "utf-8")):
            if getattr(source, name) != usual:
                options.append(f"{name}={literal(getattr(source, name))}")
    return block(Call(f"source={type(source).__name__}(", [literal(path), *options]), indent=4, comma=",")


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
        f"Always saying the mean has an error of {format_number(guess)}; a model whose error is not even 5% less has "
        "learned nothing. Lower it to what you would not go above. The tolerance is 2% of that."
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
    "FunctionTransformer": "sklearn.preprocessing",
    "OneHotEncoder": "sklearn.preprocessing",
    "OrdinalEncoder": "sklearn.preprocessing",
    "PolynomialFeatures": "sklearn.preprocessing",
    "PowerTransformer": "sklearn.preprocessing",
    "StandardScaler": "sklearn.preprocessing",
    "TargetEncoder": "sklearn.preprocessing",
    "Csv": "pipeline.sources",
    "JsonLines": "pipeline.sources",
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
    short = [f"import {module} as {name}" for module, name in (("numpy", "np"), ("pandas", "pd")) if name in used]
    return [*short, *imports(theirs), "", *imports(ours)]
