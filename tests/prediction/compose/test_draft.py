from __future__ import annotations

from img2prompt_cache.prediction.compose.draft import Draft, draft_of
from img2prompt_cache.prediction.compose.mining import ACTION, MODIFIER, SECOND, SUBJECT, TAIL, Phrase

FOX, SNOW = Phrase("A fox", SUBJECT), Phrase("in the snow", TAIL)
BOAT, OIL, MONET = Phrase("a boat", SECOND), Phrase("oil", MODIFIER, 0.2), Phrase("by Monet", MODIFIER, 0.9)


def test_phrases_are_written_in_the_order_of_people():
    assert Draft.of([MONET, OIL, BOAT, SNOW, FOX]).text == "A fox in the snow and a boat, oil, by Monet"
    assert Draft.of([SNOW, Phrase("eating", ACTION), FOX]).text == "A fox eating in the snow"
    assert Draft.of([FOX]).with_phrase(MONET).with_phrase(OIL).text == "A fox, oil, by Monet"
    assert Draft.of([FOX, OIL, MONET]).without(OIL).text == "A fox, by Monet"


def test_words_and_kinds_are_counted():
    draft = Draft.of([FOX, SNOW, OIL])
    assert draft.words == 6
    assert [draft.count(kind) for kind in (SUBJECT, ACTION, TAIL, SECOND, MODIFIER)] == [1, 0, 1, 0, 1]


def test_what_says_nothing_new_repeats():
    draft = Draft.of([FOX, SNOW, MONET])
    for text in ("a fox", "foxs", "by monet", "snow", "the snow of a fox"):
        assert draft.repeats(text), text
    for text in ("a red fox", "by Klimt", "ice"):
        assert not draft.repeats(text), text


def test_a_whole_prompt_becomes_a_draft_without_what_it_repeats():
    known = {
        (MODIFIER, "oil"): Phrase("oil", MODIFIER, 0.2, 7),
        (SUBJECT, "afox"): Phrase("A fox", SUBJECT, 0, 3),
    }
    draft = draft_of("a fox in the snow, by Monet, Oil, fox, oil", known)
    assert draft is not None
    assert draft.text == "a fox in the snow, by Monet, Oil"
    assert [phrase.row for phrase in draft.phrases] == [3, -1, -1, 7]
    assert draft_of("123", known) is None


def test_a_sentence_stays_one():
    draft = Draft.of([Phrase("a boy standing", SUBJECT), SNOW])
    assert not draft.takes(Phrase("riding a horse", ACTION))
    assert not draft.takes(Phrase("In a field", TAIL))
    assert draft.takes(Phrase("on a hill", TAIL))
    acting = Draft.of([Phrase("riding a horse", ACTION)])
    assert not acting.takes(Phrase("a boy standing", SUBJECT))
    assert acting.takes(Phrase("a boy", SUBJECT))
    assert not acting.takes(Phrase("a horse", SUBJECT))
