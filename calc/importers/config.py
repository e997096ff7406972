"""A Hugging Face ``config.json`` as a row of models.csv.

What a configuration means is data: ``config_types.csv`` says which model types are alike, ``config_formulas.csv``
computes each column from the configuration's keys, ``config_defaults.csv`` holds what a class takes for a key that is
left out, ``config_aliases.csv`` other spellings, ``config_keys.csv`` what a key may hold and ``config_rules.csv`` what
must be so for the sheets to represent the model. No code of a model is ever run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import polars as pl

from calc.errors import CalcError, DataError, closest_names
from calc.expressions import value_of
from calc.files import csv_text
from calc.formula import Node, names, parse
from calc.importers.flat import Key, flatten, short
from calc.importers.precision import precision_of
from calc.importers.safetensors import Stored
from calc.tables import DTYPES, Tables

ROOT = "decoder"
UNKNOWN = "?"
"""Stands for every model type that is not known, in the table of rules."""
HEADLESS = re.compile(r"(?<!Head)Model$|Classification$|QuestionAnswering$")
"""Classes without a language-model head: transformers' bare models and those with a head of another kind."""
WITH_HEAD = ("ChatGLMModel",)
"""Classes that are named like bare models, but have a head."""
NEEDED = (
    "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads",
    "vocab_size", "tie_word_embeddings",
)  # fmt: skip
"""What a configuration of an unknown model type must say: there is no class whose default would stand in."""


@dataclass
class Imported:
    """A row of models.csv from a configuration, with what had to be assumed and what was not read."""

    row: dict[str, object]
    assumed: dict[str, object] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    precision: str | None = None
    stored: Stored | None = None


def import_config(tables: Tables, config: Mapping[str, object], model_id: str, source: str) -> Imported:
    """Return the row that a configuration describes; raises CalcError that names the field that stands in the way."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type.strip():
        raise CalcError("model_type: is missing or no text; without it a configuration cannot be read")
    _refuse_remote_sizes(config)
    outer, inner, assumed = _parts(tables, config)
    text = _Reader(tables, inner, str(inner["model_type"]))
    if "hidden" not in text.formulas:
        raise CalcError(f"text_config: model_type {model_type!r} has its text model there, and none is described")
    found = text.columns()
    if inner is not outer:
        tower = _Reader(tables, outer | {"text_hidden_size": found["hidden"]}, model_type)
        if isinstance(outer.get("vision_config"), Mapping) and tower.formulas:
            found |= tower.columns()
        else:
            text.warnings.append(f"the towers of {model_type!r} are not described: only its text model is counted")
        text.assumed |= tower.assumed | assumed
        text.warnings += tower.warnings
    row: dict[str, object] = {"model_id": model_id, "family": model_type, **found, "source_id": source}
    for column, value in _published(tables, row).items():
        row.setdefault(column, value)
    checked = Imported(row, text.assumed, text.warnings, text.ignored())
    checked.precision, unknown = precision_of(tables, inner)
    checked.warnings += [unknown] if unknown else []
    _check_row(tables, checked)
    return checked


def _published(tables: Tables, row: Mapping[str, object]) -> dict[str, object]:
    columns = [str(c["column_name"]) for c in tables.columns("models") if c["is_file"]]
    return {c: None for c in columns if c not in row}


def _check_row(tables: Tables, imported: Imported) -> None:
    """Raise CalcError where the row breaks a rule of the table."""
    frame = pl.DataFrame({c: [None if v is None else csv_text(v)] for c, v in imported.row.items()})
    try:
        tables.extended("models", frame.with_columns(source_id=pl.lit("definition")))
    except DataError as error:
        said = (re.sub(r"^.*?, row \d+(, column )?:? ?", "", v) for v in error.violations)
        raise CalcError("; ".join(said)) from error


def _refuse_remote_sizes(config: Mapping[str, object]) -> None:
    if len(config) > 2000:
        raise CalcError(f"the configuration has {len(config)} keys; that is no model's")


def _parts(
    tables: Tables, config: Mapping[str, object]
) -> tuple[dict[str, object], dict[str, object], dict[str, object]]:
    """Return a configuration, that of its text model, which may be inside it, and what was assumed of the latter."""
    outer = dict(config)
    for key in ("text_config", "llm_config", "language_config"):
        inner = config.get(key)
        if inner is None:
            continue
        if not isinstance(inner, Mapping):
            raise CalcError(f"{key}: must be an object, is {type(inner).__name__}")
        assumed = {} if inner.get("model_type") else _text_type(tables, str(config["model_type"]), key)
        merged = {**inner, "model_type": next(iter(assumed.values()), inner.get("model_type"))}
        for shared in ("quantization_config", "architectures"):
            if shared in config:
                merged.setdefault(shared, config[shared])
        # the head is the outer model's: what it says of the tie is what holds
        if config.get("tie_word_embeddings") is not None:
            merged["tie_word_embeddings"] = config["tie_word_embeddings"]
        return outer, merged, assumed
    known = set(tables["config_types"]["model_type"])
    own = f"{config['model_type']}_text"
    return outer, outer if own not in known else {**outer, "model_type": own}, {}


def _text_type(tables: Tables, outer: str, key: str) -> dict[str, object]:
    """Return the type of the text model that a type has where its configuration does not say."""
    wanted = f"{key}.model_type"
    rows = tables["config_defaults"].filter(pl.col("model_type") == outer, pl.col("key") == wanted)
    if rows.is_empty():
        raise CalcError(f"{wanted}: is missing, and model_type {outer!r} has no default for it")
    return {wanted: json.loads(rows["value"][0])}


class _Reader:
    """Reads one configuration by the formulas of its model type."""

    def __init__(self, tables: Tables, config: Mapping[str, object], model_type: str) -> None:
        self.tables, self.config, self.model_type = tables, config, model_type
        self.warnings: list[str] = []
        self.assumed: dict[str, object] = {}
        self.types = {r["model_type"]: r for r in tables["config_types"].iter_rows(named=True)}
        self.keys = {r["key"]: Key(**r) for r in tables["config_keys"].iter_rows(named=True)}
        self.is_known = model_type in self.types and model_type != ROOT
        self.spelled = self._spelled()
        self.given = flatten(self.spelled, self.keys)
        self.shape = model_type if self.is_known else self._template()
        self.formulas = _formulas(tables, self.shape)
        if self.spelled["is_headless"] and "has_no_head" in self.formulas:
            self.warnings.append(
                f"architectures: {config['architectures']} has no language-model head: none is counted"
            )

    def columns(self) -> dict[str, object]:
        """Return the value of every column that the model type's formulas give."""
        read = {n for f in self.formulas.values() for n in names(f)}
        values = {k: v for k, v in self.given.items() if k in read or k in self._rule_keys()}
        self._add_defaults(values, read | self._rule_keys())
        self._check_rules(values)
        found = {c: self._value(f, values, c) for c, f in self.formulas.items()}
        required = {str(c["column_name"]) for c in self.tables.columns("models") if c["is_required"]}
        for column in [c for c in found if c in required and found[c] is None]:
            empty = sorted(n for n in names(self.formulas[column]) if values.get(n) is None)
            if empty:
                raise CalcError(f"{empty[0]}: is null or missing; without it {column} is not known")
        return found

    def ignored(self) -> list[str]:
        """Return the keys that could matter for another model type and that this one does not read."""
        read = {n for f in self.formulas.values() for n in names(f)} | self._rule_keys()
        return sorted(k for k, v in self.given.items() if k in _read_anywhere(self.tables) - read and _matters(v))

    def _spelled(self) -> dict[str, object]:
        """Return the configuration's keys in the spelling that formulas read."""
        aliases = self.tables["config_aliases"].filter(pl.col("model_type").is_in(["*", *self._kin()]))
        for key, value in self.config.items():
            if isinstance(value, Mapping) and key in self.keys and self.keys[key].dtype != "any":
                raise CalcError(f"{key}: is an object, not a {self.keys[key].dtype}")
        config = _nested(self.config)
        for _, key, means in aliases.iter_rows():
            if key not in config or config[key] is None:
                continue
            if config.get(means) is not None and config[means] != config[key]:
                raise CalcError(f"{key}: is {config[key]!r}, but {means} is {config[means]!r}; they mean the same")
            config[means] = config[key]
        architectures = config.get("architectures")
        classes = [str(a) for a in architectures] if isinstance(architectures, list) else []
        config["is_headless"] = bool(classes) and all(HEADLESS.search(c) and c not in WITH_HEAD for c in classes)
        return config

    def _kin(self) -> list[str]:
        return _chain(self.tables, self.model_type) if self.model_type in self.types else []

    def _template(self) -> str:
        """Return the known type whose formulas read every field of an unknown type."""
        missing = [k for k in NEEDED if self.given.get(k) is None]
        if missing:
            near = closest_names(self.model_type, [t for t in self.types if t != ROOT], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise CalcError(f"{missing[0]}: is missing, and model_type {self.model_type!r} is unknown{hint}")
        best: tuple[list[str], str] | None = None
        for candidate in [t for t, r in self.types.items() if r["is_template"]]:
            read = {n for f in _formulas(self.tables, candidate).values() for n in names(f)}
            read |= {n for _, _, f, _ in _rules(self.tables, candidate) for n in names(parse(f))}
            unread = sorted(
                k for k in self._telling() if k not in read and not any(r.startswith(f"{k}__") for r in read)
            )
            lacking = [k for k in sorted(read) if self._lacks(candidate, k)]
            if best is None or len(unread + lacking) < len(best[0]):
                best = unread + lacking, candidate
        if best is None or best[0]:
            field_ = best[0][0] if best else "model_type"
            raise CalcError(f"{field_}: model_type {self.model_type!r} is unknown, and no known shape has this field")
        self.warnings.append(f"model_type {self.model_type!r} is unknown; its fields are those of {best[1]!r}")
        return best[1]

    def _telling(self) -> list[str]:
        """Return the given keys that could say that a model is not of a known shape."""
        other = self.tables["config_aliases"].filter(pl.col("model_type") == "*")["key"].to_list()
        judged = [key for _, key, _, _ in _rules(self.tables, UNKNOWN)]
        silent = {*NEEDED, *other, *judged, *(k for k, key in self.keys.items() if key.dtype == "any")}
        own = {k.partition("__")[0]: v for k, v in self.spelled.items() if _matters(v)}
        return [k for k in own if k not in silent]

    def _lacks(self, candidate: str, key: str) -> bool:
        """Tell whether a type's formulas need a number that neither the configuration nor a neutral value gives."""
        needed = {"num_local_experts", "num_experts", "n_routed_experts", "num_experts_per_tok", "kv_lora_rank",
                  "moe_intermediate_size", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"}  # fmt: skip
        return key in needed and self.given.get(key) is None

    def _add_defaults(self, values: dict[str, object], read: set[str]) -> None:
        defaults = _defaults(self.tables, self.shape if self.is_known else "")
        for key in sorted(read):
            base = key.partition("__")[0]
            # null is a value of its own: the class does not put its default there
            if key in self.spelled or (base != key and base in self.spelled):
                continue
            if key in defaults:
                values[key] = defaults[key]
                self.assumed[key] = _plain(defaults[key])
            elif not self.is_known and key in self.keys and self.keys[key].dtype == "boolean":
                self.assumed[key] = False

    def _check_rules(self, values: Mapping[str, object]) -> None:
        for _, key, formula, rule in self._rules():
            if self._value(parse(formula), values, key) is False:
                named, given = key.replace("__", "."), short(self.spelled.get(key))
                raise CalcError(f"{named}: {given} stands in the way: the sheets can hold this model only where {rule}")

    def _rule_keys(self) -> set[str]:
        return {n for _, _, f, _ in self._rules() for n in names(parse(f))}

    def _rules(self) -> list[tuple[str, str, str, str]]:
        return _rules(self.tables, self.shape) + ([] if self.is_known else _rules(self.tables, UNKNOWN))

    def _value(self, formula: Node, values: Mapping[str, object], column: str) -> object:
        return value_of(formula, {n: pl.Series([values.get(n)], dtype=self._dtype(n)) for n in names(formula)}, column)

    def _dtype(self, name: str) -> type[pl.DataType]:
        key = self.keys.get(name)
        return DTYPES[key.dtype if key is not None and key.dtype in DTYPES else "number"]


def _nested(config: Mapping[str, object]) -> dict[str, object]:
    """Return a configuration with what is inside its objects beside it, ``__`` between the names."""
    found: dict[str, object] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and key not in ("text_config",):
            found |= {f"{key}__{k}": v for k, v in value.items() if not isinstance(v, Mapping)}
        else:
            found[key] = value
    return found


def _plain(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _matters(value: object) -> bool:
    return value not in (None, False, 0, "", [], {})


@lru_cache(maxsize=512)
def _chain(tables: Tables, model_type: str) -> list[str]:
    """Return a model type and those that it is like, nearest first."""
    like = dict(tables["config_types"].select("model_type", "like").iter_rows())
    found = [model_type]
    while like.get(found[-1]):
        found.append(like[found[-1]])
    return found


@lru_cache(maxsize=512)
def _formulas(tables: Tables, model_type: str) -> dict[str, Node]:
    """Return the formula of each column for a model type."""
    found: dict[str, Node] = {}
    for kin in reversed(_chain(tables, model_type)):
        for _, column, formula in tables["config_formulas"].filter(pl.col("model_type") == kin).iter_rows():
            found[column] = parse(formula)
    return found


@lru_cache(maxsize=8)
def _read_anywhere(tables: Tables) -> set[str]:
    """Return the keys, none of those inside others, that some model type's formulas read."""
    read = {n for formula in tables["config_formulas"]["formula"] for n in names(parse(formula))}
    return {n for n in read if "__" not in n}


@lru_cache(maxsize=512)
def _rules(tables: Tables, model_type: str) -> list[tuple[str, str, str, str]]:
    """Return the rules that hold for a model type: (model type, key, formula, sentence)."""
    kin = [UNKNOWN] if model_type == UNKNOWN else ["*", *_chain(tables, model_type)]
    return [r for r in tables["config_rules"].iter_rows() if r[0] in kin]


@lru_cache(maxsize=512)
def _defaults(tables: Tables, model_type: str) -> dict[str, object]:
    """Return what a model type's class takes for keys that are left out, flat."""
    rows = tables["config_defaults"].filter(pl.col("model_type") == model_type)
    keys = {r["key"]: Key(**r) for r in tables["config_keys"].iter_rows(named=True)}
    return flatten({k.replace(".", "__"): json.loads(v) for _, k, v in rows.iter_rows()}, keys)
