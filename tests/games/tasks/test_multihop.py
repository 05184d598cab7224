"""The corpus and questions over it: what a reader of the texts alone would find."""

import re
from collections import Counter

import pytest

from games.tasks import check, task_set
from games.tasks.corpus import WORDINGS, corpus
from games.tasks.multihop import PHRASES
from games.tasks.world import EVENTS, FIRST_NAMES, ORGANISATIONS, world

# What the tests take sentences and phrases to mean, written down without looking at how they are made.
NAME = r"((?:[A-Z]\w+ )?[A-Z]\w+)"
SENTENCES = {
    "born in the year": (rf"{NAME} was born in the year (\d+)", "birth year"),
    "born in": (rf"{NAME} was born in {NAME}", "birthplace"),
    "worked": (rf"{NAME} worked for the {NAME}", "employer"),
    "student": (rf"{NAME} was a student of {NAME}", "teacher"),
    "married": (rf"{NAME} was married to {NAME}", "spouse"),
    "city": (rf"{NAME} is a city in {NAME}", "country"),
    "mayor": (rf"The mayor of {NAME} is {NAME}", "mayor"),
    "capital": (rf"The capital of {NAME} is {NAME}", "capital"),
    "leader": (rf"The leader of {NAME} is {NAME}", "leader"),
    "founded in": (rf"The {NAME} was founded in the year (\d+)", "founding year"),
    "founded by": (rf"The {NAME} was founded by {NAME}", "founder"),
    "head": (rf"The head of the {NAME} is {NAME}", "head"),
    "seat": (rf"The seat of the {NAME} is in {NAME}", "seat"),
    "first": (rf"The {NAME} was first held in the year (\d+)", "first year"),
    "organised": (rf"The {NAME} is organised by the {NAME}", "organiser"),
    "place": (rf"The {NAME} takes place in {NAME}", "venue"),
    "won": (rf"The {NAME} was won by {NAME}", "winner"),
}
NO_FACT = r"Travellers often go|Some like|The [A-Z]\w+ \w+ and the .* are often mixed up|Few know that"
SMALL = {"documents": 150}
COMMON = {*FIRST_NAMES, *EVENTS, *ORGANISATIONS}
"""Words that many names have."""


def facts(documents):
    """(name, relation) to what it leads to and the documents that say so, read from the texts."""
    found = {}
    for document in documents:
        for sentence in re.split(r"\.(?: |$)", document.text)[:-1]:
            if re.match(NO_FACT, sentence):
                continue
            matches = [(re.fullmatch(pattern, sentence), relation) for pattern, relation in SENTENCES.values()]
            ((match, relation),) = [(match, relation) for match, relation in matches if match]
            found.setdefault((match[1], relation), []).append((match[2], document.id))
    return found


def path(question):
    """Relations from the thing in the question on, read from the question."""
    inner = re.fullmatch(r"(?:What|Who) is (.+)\?", question)[1]
    relations = []
    while match := re.match(r"the ([a-z]+(?: year)?) of (.+)", inner):
        relations.append(match[1])
        inner = match[2]
    return inner.removeprefix("the "), relations[::-1]


@pytest.mark.parametrize("settings", [SMALL, {"documents": 20}, {"documents": 150, "hops": 4, "world_seed": 3}, {}])
def test_whoever_walks_the_facts_of_the_texts_finds_the_answer_in_the_supporting_documents(settings):
    shared = {name: value for name, value in settings.items() if name != "hops"}
    known = facts(corpus(**shared).documents)
    for task in task_set("multihop", **settings, size=250):
        place, relations = path(task.prompt)
        chain, support = [place], []
        for relation in relations:
            ((place, document),) = known[place, relation]  # one fact, in one document
            chain.append(place)
            support.append(document)
        assert chain == task.metadata["chain"]
        assert chain[-1] == task.answer
        assert support == task.metadata["support"]
        assert len(set(support)) == len(relations) == task.metadata["hops"]
        assert corpus(**task.metadata["corpus"]) is corpus(**shared)


@pytest.mark.parametrize("style", ["plain", "varied"])
def test_questions_name_neither_the_answer_nor_what_lies_between(style):
    for task in task_set("multihop", **SMALL, style=style, size=400):
        start, *hidden = task.metadata["chain"]
        assert start in task.prompt
        assert not any(re.search(rf"\b{name}\b", task.prompt) for name in hidden)
        assert check(task, task.answer.lower()) == 1.0
        assert check(task, start) == 0.0


@pytest.mark.parametrize("hops", range(1, 5))
def test_hops_are_as_many_as_asked_for_and_questions_get_longer(hops):
    tasks = task_set("multihop", **SMALL, hops=hops, size=100)
    assert {task.metadata["hops"] for task in tasks} == {hops}
    assert {task.prompt.count(" of ") for task in tasks} == {hops}
    assert all(len(task.metadata["support"]) == hops for task in tasks)


def test_hops_are_one_to_four_at_random_unless_asked_for():
    hops = Counter(task.metadata["hops"] for task in task_set("multihop", size=400))
    assert sorted(hops) == [1, 2, 3, 4]
    assert min(hops.values()) > 60


def test_every_relation_is_asked_for():
    tasks = task_set("multihop", size=600)
    assert len({relation for task in tasks for relation in task.metadata["relations"]}) == len(SENTENCES)


def test_one_context_cannot_hold_the_default_corpus():
    documents = corpus().documents
    assert len(documents) == len({document.title for document in documents}) == 2000
    # No tokenizer in use makes tokens of more than six characters on average, of such names least of all.
    assert sum(len(document.text) for document in documents) / 6 > 2 * 32_000
    assert max(len(document.text) for document in documents) < 500
    assert [document.id for document in documents[:2]] == ["d0001", "d0002"]


@pytest.mark.parametrize("size", [20, 21, 333])
def test_a_corpus_has_as_many_documents_as_asked_for_and_no_name_can_be_read_off_another(size):
    titles = [document.title for document in corpus(documents=size).documents]
    assert len(titles) == size
    # A surname, the first word of an organisation or event, a place: the word that is a name's own.
    ends = ("man", "sen", "ski", "ia", "land", "burg", "ford", "ton", "l", "n", "x")
    own = [[word for word in title.split() if word not in COMMON] for title in titles]
    assert all(len(words) == 1 and words[0].endswith(ends) for words in own)
    assert len({words[0] for words in own}) == size


@pytest.mark.parametrize("world_seed", range(6))
def test_the_smallest_corpus_has_questions_of_every_length_for_both_splits(world_seed):
    for hops in range(1, 5):
        for split in ("train", "test"):
            assert task_set("multihop", documents=20, hops=hops, split=split, world_seed=world_seed)[0].answer


@pytest.mark.parametrize("style", ["plain", "varied"])
def test_a_text_is_about_its_title_and_states_all_that_is_true_of_it(style):
    texts = corpus(**SMALL, style=style)
    for document in texts.documents:
        thing = texts.things[document.title]
        sentences = re.split(r"\.(?: |$)", document.text)[:-1]
        assert all(document.title in sentence for sentence in sentences)
        assert len(sentences) == len(thing.facts) + 1
        for other in thing.facts.values():
            assert any(re.search(rf"\b{other}\b", sentence) for sentence in sentences)


def test_varied_sentences_say_one_thing_each_and_all_that_is_true():
    texts = corpus(documents=800, style="varied")
    used = Counter()
    for document in texts.documents:
        thing, read = texts.things[document.title], {}
        for sentence in re.split(r"(?<=\.) ", document.text):
            for relation, wordings in WORDINGS.items():
                for wording in wordings:
                    pattern = re.escape(wording).replace(r"\{0\}", "(?P<one>.+)").replace(r"\{1\}", "(?P<other>.+)")
                    match = re.fullmatch(pattern, sentence)
                    if match and match["one"] in texts.things and re.fullmatch(rf"{NAME}|\d+", match["other"]):
                        assert (match["one"], relation) not in read, sentence
                        read[match["one"], relation] = match["other"]
                        used[wording] += 1
        assert read == {(document.title, relation): other for relation, other in thing.facts.items()}
    assert len(used) == sum(map(len, WORDINGS.values()))


def test_varied_questions_ask_for_the_end_of_their_chain():
    texts = corpus(**SMALL, style="varied")
    for task in task_set("multihop", **SMALL, style="varied", size=300):
        place, *rest = task.metadata["chain"]
        phrases = {f"the {place}", place}
        for relation, following in zip(task.metadata["relations"], rest):
            phrases = {wording.format(phrase) for wording in PHRASES[relation] for phrase in phrases}
            assert texts.things[place].facts[relation] == following
            place = following
        assert re.fullmatch(r"(?:Who|What) is (.+)\?", task.prompt)[1] in phrases
        assert task.prompt.startswith("Who") == (place in texts.things and texts.things[place].kind == "person")


def test_styles_tell_the_same_world_in_other_words():
    plain, varied = corpus(**SMALL), corpus(**SMALL, style="varied")
    assert plain.things == varied.things
    assert plain.ids == varied.ids
    same = sum(one.text == other.text for one, other in zip(plain.documents, varied.documents))
    assert same < len(plain.documents) / 4
    questions = [task_set("multihop", **SMALL, style=style, size=50) for style in ("plain", "varied")]
    assert {task.prompt for task in questions[0]} != {task.prompt for task in questions[1]}


@pytest.mark.parametrize("seed", [0, 1])
def test_the_world_makes_sense(seed):
    things = world(300, seed)
    for name, thing in things.items():
        for relation, other in thing.facts.items():
            assert other in things or re.fullmatch(r"19\d\d|20\d\d", other)
            if relation == "spouse":
                assert things[other].facts["spouse"] == name
            if relation == "capital":
                assert things[other].facts["country"] == name
            if relation == "teacher":
                assert int(things[other].facts["born"]) + 10 <= int(thing.facts["born"])
            if relation == "founder":
                assert int(things[other].facts["born"]) + 20 <= int(thing.facts["founded"])
            if relation == "organiser":
                assert int(things[other].facts["founded"]) < int(thing.facts["first"])
    assert Counter(thing.kind for thing in things.values()) == {
        "person": 150,
        "city": 42,
        "country": 6,
        "organisation": 54,
        "event": 48,
    }
    assert things != world(300, seed + 2)


def test_a_corpus_is_made_once_in_a_process():
    assert corpus(documents=50) is corpus(documents=50, world_seed=0, style="plain")
    assert corpus(documents=50) is not corpus(documents=50, world_seed=1)
