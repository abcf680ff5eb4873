"""Prompts become ids; words without effect are named."""

import pytest

from comfynb.engine.model import WEIGHTS
from comfynb.engine.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(WEIGHTS / "vocab.json")


def understood(tokenizer, text):
    """The vocabulary's words that a text was understood as."""
    return [tokenizer.words[i] for i in tokenizer.encode(text).ids[1:-1]]


def test_known_words_keep_their_order_and_ignore_case_and_punctuation(tokenizer):
    assert understood(tokenizer, "Close-up: a FOX, in_snow!") == [
        "close", "up", "a", "fox", "in", "snow",
    ]  # fmt: skip


def test_every_word_of_the_vocabulary_is_itself(tokenizer):
    for i, word in enumerate(tokenizer.words[3:], start=3):
        assert tokenizer.lookup(word) == i


def test_an_empty_text_is_the_two_marks(tokenizer):
    begin, end = tokenizer.encode("").ids
    assert [tokenizer.words[begin], tokenizer.words[end]] == ["<bos>", "<eos>"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lighthuose", "lighthouse"),  # two letters swapped
        ("ligthouse", "lighthouse"),  # one missing
        ("pengguin", "penguin"),  # one too many
        ("elephent", "elephant"),  # one wrong
        ("snowmans", "snowmans"),
        ("windmill's", "windmill"),
        ("windmill\u2019s", "windmill"),
        ("foxy", "fox"),
        ("sailing", "sailing"),
    ],
)
def test_near_misspellings_and_endings_are_understood(tokenizer, typed, meant):
    assert understood(tokenizer, typed) == [meant]
    assert tokenizer.encode(typed).unknown == ()


def test_unknown_words_are_reported_once_and_in_order(tokenizer):
    tokens = tokenizer.encode("a violoncello and a didgeridoo, violoncello")
    assert tokens.unknown == ("violoncello", "didgeridoo")


def test_words_of_other_scripts_are_reported_and_not_skipped(tokenizer):
    assert tokenizer.encode("夜の狐 in Zürich").unknown == ("夜の狐", "zürich")


def test_short_words_are_not_guessed(tokenizer):
    assert tokenizer.encode("fot").unknown == ("fot",)


def test_a_prompt_weight_does_not_become_a_count(tokenizer):
    assert understood(tokenizer, "(fox:1.3)") == ["fox"]
    assert understood(tokenizer, "3 foxes") == ["3", "foxes"]


def test_special_tokens_cannot_be_typed(tokenizer):
    assert tokenizer.encode("<bos> <pad>").ids == tokenizer.encode("bos pad").ids
    assert tokenizer.encode("<bos>").unknown == ("bos",)


def test_a_long_text_is_cut_at_the_last_place_and_the_rest_reported(tokenizer):
    tokens = tokenizer.encode("fox " * 38 + "owl")
    assert len(tokens.ids) == tokenizer.max_tokens == 40
    assert tokens.ids[-1] == tokenizer.encode("").ids[-1]
    assert tokens.unknown == ("owl",)
