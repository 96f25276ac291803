"""Decontamination as Tülu 3 defines it [P:§3.2]: which evaluation items stand in which training rows.

A token of a test item is covered when it lies in an 8-gram that also occurs in one training row (its user turns; an
n-gram never spans two turns). An item's score on a row is its covered tokens over its tokens; with several fields,
the mean over the fields that are not empty. Item and row overlap when the score is above 0.5. A source is
contaminated by an evaluation when more than 2 % of its items overlap some row of the source.

Fields shorter than 8 tokens: an item all of whose fields are shorter matches only a user turn that equals it, token
for token, fields joined by a space. Next to a longer field, a shorter one counts 1 where it occurs in the row as a
phrase, else 0. Empty fields are left out, items without any token are counted and skipped.

    evals_file   evals.yaml, checked whole        tokens    what a token is, and hashes of many
    items        rows of the evaluations          index     the evaluations as arrays
    match        rows × items above the threshold decide    what goes: sources, rows, nothing
    explain      where the match stands           scan      a dataset, part by part, in processes
    texts        user turns of a dataset          report    contamination.json, contamination.md

docs/decontamination.md has the whole rule and where it differs from the released script.
"""
