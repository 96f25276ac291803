"""Row filters by name, as a mix asks for them: `filter_problems` checks a request, `make_filter` builds it.

A filter looks at one canonical row and says None, which keeps it, or a short reason, which is counted. It never
changes a row. Reasons hold no values of the row. Filters that compare rows (`GLOBAL_FILTERS`) work on keys, in
`duplicates`. A name with a colon, `my_package.my_filters:polite`, is a function of the user.
"""

from tulu_recipes.data.filters.kinds import FilterKind, Parameter, RowFilter, Tokenizer
from tulu_recipes.data.filters.registry import FILTERS, GLOBAL_FILTERS, filter_problems, make_filter

__all__ = [
    "FILTERS",
    "GLOBAL_FILTERS",
    "FilterKind",
    "Parameter",
    "RowFilter",
    "Tokenizer",
    "filter_problems",
    "make_filter",
]
