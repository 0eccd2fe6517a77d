"""Words of English that say where a phrase may begin and end."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PREPOSITIONS = _words(
    "in on at with near under behind beside inside outside through across into onto along around between "
    "above against beneath underneath over down past during among towards toward"
)
DETERMINERS = _words(
    "a an the two three four five six several some many his her their its this that these those"
)
VERBS_OF_CLAUSES = _words("is are was were has have had that who which while and or but")
"""Words that make a clause of what they stand in."""

NEVER_FIRST = _words(
    "and or but nor which that who whom whose is are was were be been being has have had to of than then as "
    "it he she they where when while so if because not no can will would does do did"
)
NEVER_LAST = _words(
    "and or but nor of the a an by in on with at to for from is are was were as his her its their this that "
    "these those into onto near under behind which who very most more my your our no not than"
)
WITHOUT_CONTENT = _words(
    "a an the of in on at with by and or to from for is are its his her their very highly most more style art"
)
NOUNS_IN_ING = _words(
    "building painting drawing rendering lighting shading evening morning king ring string wing thing "
    "something nothing everything anything spring ceiling clothing wedding swing sling viking sibling "
    "duckling railing being engraving carving etching lettering setting opening crossing landing parking "
    "icing stocking ending meeting"
)
"""Words that end as participles do, and are nouns."""

ADJECTIVES = _words(
    "tall huge small big large little tiny giant old young cute epic long dark majestic surreal futuristic "
    "ancient modern realistic massive detailed cinematic magical mystical red blue green black white"
)
"""Words that people list before a noun: "a majestic, horrifying owl"."""
ADJECTIVE_ENDINGS = ("ful", "ous", "esque", "less")
