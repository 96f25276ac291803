"""The keys of a mix YAML and what each may hold."""

from tulu_recipes.config.keys import FRACTION, POSITIVE, Key, Limits

TARGETS = ("sft", "preference", "rlvr")
ORDERS = ("shuffled", "as_given")
AMOUNTS = ("rows", "fraction_of_source", "repeat")

NO_WEIGHT = (
    "a weight means five things (fraction of the source, share of the mix, sampling probability, rows, repeats); "
    "say which:  rows: 1000,  fraction_of_source: 0.1,  or  repeat: 2"
)


def _key(
    name: str,
    kinds: str,
    default: object,
    words: str,
    *,
    choices: tuple[str, ...] = (),
    limits: Limits | None = None,
) -> Key:
    return Key(name, tuple(kinds.split()), choices, default, words, "mix", "tulu_recipes", limits)


def _by_name(*keys: Key) -> dict[str, Key]:
    return {key.name: key for key in keys}


MIX_KEYS = _by_name(
    _key("base", "str", None, "Another mix file that this one changes, relative to this file."),
    _key("without", "list", [], "With base: labels or names of its sources to leave out."),
    _key("target", "str", "sft", "What the rows are for.", choices=TARGETS),
    _key("seed", "int", 42, "Of sampling and order.", limits=Limits(0, 2**63 - 1)),
    _key("order", "str", "shuffled", "Of the finished rows.", choices=ORDERS),
    _key("tokenizer", "null str", None, "Hub id or folder of a tokenizer.json; counts tokens."),
    _key("tokenizer_revision", "null str", None, "Branch, tag or commit of the tokenizer."),
    _key("shard_rows", "int", 50_000, "Rows of one parquet file at most.", limits=POSITIVE),
    _key("max_broken_fraction", "float", 0.01, "Share of a source's rows that may be broken.", limits=FRACTION),
    _key("sources", "list", [], "What is mixed."),
    _key("filters", "list", [], "Filters of all rows, in this order."),
    _key("decontaminate", "dict", None, "against: an evaluation list."),
)

SOURCE_KEYS = _by_name(
    _key("name", "str", None, "Hub id, hf:// path, file or folder."),
    _key("config", "null str", None, "Configuration of the Hub dataset."),
    _key("split", "null str", None, "Split to take; train, or the only one there is."),
    _key("revision", "null str", None, "Branch, tag or commit; the lock pins the commit."),
    _key("label", "null str", None, "Value of the source column; the rows' own source, else the name."),
    _key("layout", "null str", None, "Name of the layout; recognised by the columns otherwise."),
    _key("columns", "dict", {}, "The layout's column: the dataset's column."),
    _key("keep_columns", "list", [], "Further columns to keep."),
    _key("where", "dict", {}, "column: value (or list of values) that rows must have; * and ? are wildcards."),
    _key("rows", "int", None, "Rows to take.", limits=POSITIVE),
    _key("fraction_of_source", "float", None, "Share of the source's rows to take.", limits=Limits(0, 1, True)),
    _key("repeat", "float", None, "How often each row is taken; 3.5 is allowed.", limits=Limits(0, None, True)),
    _key("stated_rows", "int", None, "Rows that the publisher says there are; shown beside those found."),
    _key("licence", "null str", None, "Licence, where the card names none or another."),
    _key("filters", "list", [], "Filters of this source, before the mix's."),
)

DECONTAMINATE_KEYS = _by_name(
    _key("against", "str", None, "Path of an evaluation list, e.g. data_mixes/evals.yaml."),
)
