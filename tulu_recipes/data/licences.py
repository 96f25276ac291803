"""Which of several dataset licences asks most, and what a mix of them must say.

The ids are the Hub's. This is a reading aid, not legal advice: it sorts licences by what they forbid or demand, and
where no order is certain (share-alike beside non-commercial, terms of a model maker, no licence at all) it says so
and leaves the question to a person.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum


class LicenceClass(IntEnum):
    """What a licence asks, weakest first."""

    PUBLIC_DOMAIN = 0
    PERMISSIVE = 1
    ATTRIBUTION = 2
    SHARE_ALIKE = 3
    NON_COMMERCIAL = 4
    NO_DERIVATIVES = 5
    CUSTOM_TERMS = 6
    UNKNOWN = 7

    @property
    def words(self) -> str:
        return self.name.lower().replace("_", " " if self.name.startswith(("PUBLIC", "CUSTOM")) else "-")


# Weakest first within a class as well: a later one asks at least what an earlier one does, or the newer version of it.
KNOWN: dict[LicenceClass, str] = {
    LicenceClass.PUBLIC_DOMAIN: "unlicense 0bsd wtfpl pddl cc0-1.0",
    LicenceClass.PERMISSIVE: (
        "mit zlib isc postgresql ncsa bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 afl-3.0 artistic-2.0 "
        "ecl-2.0 ms-pl apache-2.0 openmdw-1.0 cdla-permissive-1.0 cdla-permissive-2.0"
    ),
    LicenceClass.ATTRIBUTION: "etalab-2.0 odc-by cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0",
    LicenceClass.SHARE_ALIKE: (
        "cc-by-sa-3.0 cc-by-sa-4.0 odbl cdla-sharing-1.0 gfdl mpl-2.0 lgpl lgpl-2.1 lgpl-3.0 lgpl-lr lppl-1.3c "
        "ofl-1.1 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 osl-3.0 gpl gpl-2.0 gpl-3.0 agpl-3.0"
    ),
    LicenceClass.NON_COMMERCIAL: (
        "cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0"
    ),
    LicenceClass.NO_DERIVATIVES: "cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0",
    LicenceClass.CUSTOM_TERMS: (
        "openrail openrail++ creativeml-openrail-m bigscience-openrail-m bigcode-openrail-m bigscience-bloom-rail-1.0 "
        "llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 gemma grok2-community apple-ascl deepfloyd-if-license "
        "apple-amlr intel-research h-research fair-noncommercial-research-license c-uda cc other"
    ),
    LicenceClass.UNKNOWN: "unknown",
}
RANKS = {
    licence: (kind, position) for kind, ids in KNOWN.items() for position, licence in enumerate(ids.split(), start=1)
}
ALIASES = {
    "odc-by-1.0": "odc-by",
    "odbl-1.0": "odbl",
    "cc0": "cc0-1.0",
    "apache2": "apache-2.0",
    "apache2.0": "apache-2.0",
    "apache-2": "apache-2.0",
    "apache-license-2.0": "apache-2.0",
    "mit-license": "mit",
    "the-unlicense": "unlicense",
    "llama-3.1-community-license": "llama3.1",
    "none": "unknown",
    "not-given": "unknown",
}
# Terms of their own that also forbid commercial use.
RESEARCH_ONLY = {"apple-amlr", "intel-research", "h-research", "fair-noncommercial-research-license"}


@dataclass(frozen=True)
class LicenceSummary:
    """The licences of a mix. Sources by name; a source with several licences is bound by all of them.

    hub_id: for the card's `license`; "other" where no single licence of the sources covers all of them.
    hub_name: for `license_name` when hub_id is "other".
    most_restrictive: the licence that asks most, as classes are ordered; "unknown" only when no source has any.
    ordered: whether `most_restrictive` covers all others, so that keeping to it keeps to all.
    """

    hub_id: str
    hub_name: str | None
    most_restrictive: str
    ordered: bool
    by_licence: dict[str, list[str]]
    share_alike: dict[str, list[str]]
    non_commercial: dict[str, list[str]]
    no_derivatives: dict[str, list[str]]
    custom: dict[str, list[str]]
    unknown: list[str]


def licence_class(licence: str) -> LicenceClass:
    """The class of one id; CUSTOM_TERMS for an id that is not in the table, as nothing is known of what it asks."""
    return RANKS.get(licence, (LicenceClass.CUSTOM_TERMS, 0))[0]


def licence_ids(licence: str | None) -> list[str]:
    """The Hub's ids in what a card or a mix says: "CC-BY-4.0" → cc-by-4.0, "mit, cc-by-4.0" → both, None → unknown."""
    ids = []
    for word in (licence or "").split(","):
        plain = re.sub(r"[\s_]+", "-", word.strip().lower())
        if plain:
            ids.append(ALIASES.get(plain, plain))
    return ids or ["unknown"]


def most_restrictive(licences: Mapping[str, str | None]) -> LicenceSummary:
    """Sort the licences of a mix's sources.

    Args:
        licences: source → licence as its card or the mix states it; None where it states none.
    """
    by_licence: dict[str, list[str]] = {}
    for source, stated in licences.items():
        for licence in licence_ids(stated):
            by_licence.setdefault(licence, []).append(source)
    by_licence = dict(sorted(by_licence.items(), key=lambda item: _rank(item[0]), reverse=True))
    unknown = by_licence.pop("unknown", [])
    strictest = next(iter(by_licence), "unknown")
    ordered = not (unknown and by_licence) and all(covers(strictest, other) for other in by_licence)
    hub_id = strictest if ordered and strictest in RANKS else "other"
    return LicenceSummary(
        hub_id=hub_id,
        hub_name=_hub_name(strictest, ordered) if hub_id == "other" else None,
        most_restrictive=strictest,
        ordered=ordered,
        by_licence=by_licence,
        share_alike={licence: names for licence, names in by_licence.items() if _is_share_alike(licence)},
        non_commercial={licence: names for licence, names in by_licence.items() if _is_non_commercial(licence)},
        no_derivatives=_of_class(by_licence, LicenceClass.NO_DERIVATIVES),
        custom=_of_class(by_licence, LicenceClass.CUSTOM_TERMS),
        unknown=unknown,
    )


def covers(strict: str, other: str) -> bool:
    """Whether who keeps to `strict` keeps to `other` as well, as far as their classes tell."""
    if strict == other:
        return True
    kind = licence_class(other)
    if kind <= LicenceClass.ATTRIBUTION:
        return _rank(strict) > _rank(other)
    # Share-alike, no-derivatives and custom terms bind to their own text; plain non-commercial ones only forbid.
    only_forbids = kind is LicenceClass.NON_COMMERCIAL and not _is_share_alike(other)
    return only_forbids and _is_non_commercial(strict) and licence_class(strict) is not LicenceClass.CUSTOM_TERMS


def _rank(licence: str) -> tuple[int, int, str]:
    kind, position = RANKS.get(licence, (LicenceClass.CUSTOM_TERMS, 0))
    return int(kind), position, licence


def _is_share_alike(licence: str) -> bool:
    return licence_class(licence) is LicenceClass.SHARE_ALIKE or "-sa-" in licence


def _is_non_commercial(licence: str) -> bool:
    return licence.startswith("cc-by-nc-") or licence in RESEARCH_ONLY


def _of_class(by_licence: Mapping[str, list[str]], kind: LicenceClass) -> dict[str, list[str]]:
    return {licence: names for licence, names in by_licence.items() if licence_class(licence) is kind}


def _hub_name(strictest: str, ordered: bool) -> str:
    """A name the Hub accepts: lower-case letters, digits, hyphens and dots."""
    if ordered and strictest != "other":
        return re.sub(r"[^a-z0-9.]+", "-", strictest).strip("-") or "custom-terms"
    return "custom-terms" if ordered else "several-licences"
