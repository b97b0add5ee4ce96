"""Few-shot prompts: verbatim, balanced, deterministic, and never the question itself."""

from collections import Counter

import hypothesis
import pytest
from hypothesis import strategies as st

from fishjax.tasks import (
    OpenQuestion,
    Question,
    TaskError,
    choose_shots,
    few_shot,
    load_open_task,
    load_task,
    with_shots,
)

CHOICES = (" yes", " no", " maybe")


def classed(number, label):
    labels = tuple(int(i == label) for i in range(3))
    return Question(f"q{number}", f"{number}?", CHOICES, labels, ("yes", "no", "maybe"), {})


def opened(number, *aliases):
    return OpenQuestion(f"o{number}", f"Q: {number}?\nA:", aliases or ("x", "y"), {})


def test_solved_examples_come_first():
    first, second, third = (classed(number, number) for number in range(3))
    (question,) = with_shots([third], [first, second])
    assert question == third._replace(context="0? yes\n\n1? no\n\n2?")
    (question,) = with_shots([third], [first, second], separator="\n")
    assert question.context == "0? yes\n1? no\n2?"
    assert with_shots([first, third], []) == [first, third]


def test_open_questions_use_the_first_alias():
    shots = [opened(1, "one", "1"), OpenQuestion("o2", "Two:\n", ("two",), {})]
    (question,) = with_shots([opened(3)], shots)
    assert question.context == "Q: 1?\nA: one\n\nTwo:\ntwo\n\nQ: 3?\nA:"
    assert question.aliases == ("x", "y")


def test_a_description_shared_by_all_is_said_once():
    described = [
        q._replace(context=f"About.\n\nOf this.\n\n{q.context}") for q in map(opened, "abc")
    ]
    (question,) = with_shots(described[2:], described[:2], separator="\n---\n")
    assert question.context == (
        "About.\n\nOf this.\n\nQ: a?\nA: x\n---\nQ: b?\nA: x\n---\nQ: c?\nA:"
    )
    (question,) = with_shots(described[2:], [described[0], opened("b")])
    assert question.context == (
        "About.\n\nOf this.\n\nQ: a?\nA: x\n\nQ: b?\nA: x\n\nAbout.\n\nOf this.\n\nQ: c?\nA:"
    )


def test_a_question_is_never_its_own_example():
    pool = [opened(number) for number in range(4)]
    same_text = pool[2]._replace(id="another")
    questions = with_shots([pool[0], same_text, opened(9)], pool[:3])
    assert [question.context.count("A: x") for question in questions] == [2, 2, 3]
    assert all(
        question.context.count(f"Q: {n}?") == 1
        for n, question in zip("02", questions[:2], strict=True)
    )
    questions = with_shots([pool[0], same_text, opened(9)], pool, count=2)
    assert [question.context.count("A: x") for question in questions] == [2, 2, 2]
    with pytest.raises(
        TaskError, match=r"question 'o0': 1 of 2 examples .* expected 2: choose more"
    ):
        with_shots([pool[0]], pool[:2], count=2)


@pytest.mark.parametrize("size", [3, 4, 5, 9])
def test_every_question_gets_as_many_examples_of_its_own_pool(size):
    """Also where the pool has no more than that beside the question, and repeats a prompt."""
    pool = [opened(number, f"answer {number}") for number in range(size)]
    pool.append(pool[0]._replace(id="again"))
    questions = few_shot(pool, pool, 2, seed=3)
    drawn = [shot.context for shot in choose_shots(pool, size, 3)]
    for question, asked in zip(questions, pool, strict=True):
        *examples, own = question.context.split("\n\n")
        assert own == asked.context
        expected = [text for text in drawn if text != own][:2]
        assert [example.split(" answer")[0] for example in examples] == expected
        assert question.aliases == asked.aliases
    message = f"{size} of {size + 1} questions can be examples: expected {size + 1}"
    with pytest.raises(TaskError, match=message):
        few_shot(pool, pool, size + 1, seed=3)
    with pytest.raises(TaskError, match=r"have another id and another prompt: expected .* lower"):
        few_shot(pool, pool, size, seed=3)


def test_several_true_answers_are_skipped_or_refused():
    several = classed(0, 0)._replace(labels=(1, 1, 0))
    pool = [several, classed(1, 0), classed(2, 1)]
    assert [shot.id for shot in choose_shots(pool, 2, 0)] in (["q1", "q2"], ["q2", "q1"])
    with pytest.raises(TaskError, match="2 of 3 questions can be examples: expected 3"):
        choose_shots(pool, 3, 0)
    with pytest.raises(TaskError, match="the example 'q0' has several true answers"):
        with_shots(pool[1:], [several])


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    labels=st.lists(st.integers(0, 2), max_size=30), seed=st.integers(0, 99), data=st.data()
)
def test_shots_are_balanced_distinct_and_deterministic(labels, seed, data):
    pool = [classed(number % 25, label) for number, label in enumerate(labels)]
    distinct = {question.context: question for question in reversed(pool)}
    count = data.draw(st.integers(0, len(distinct)))
    shots = choose_shots(pool, count, seed)
    assert shots == choose_shots(pool, count, seed)
    assert len(shots) == len({shot.context for shot in shots}) == count
    assert all(distinct[shot.context] == shot for shot in shots)
    held = Counter(question.gold for question in distinct.values())
    for length in range(count + 1):
        seen = Counter(shot.gold for shot in shots[:length])
        for label, number in held.items():
            assert seen[label] >= min(number, max(seen.values(), default=0) - 1)


def test_seeds_differ_and_prompts_without_classes_are_drawn_from_all():
    pool = [opened(number) for number in range(50)]
    drawn = {tuple(shot.id for shot in choose_shots(pool, 4, seed)) for seed in range(20)}
    assert len(drawn) == 20
    mixed = [classed(n, 0) for n in range(20)] + [
        classed(99, 1)._replace(choices=(" a", " b", " c"))
    ]
    assert {q.id for q in choose_shots(mixed, 2, 0)} <= {q.id for q in mixed}


@pytest.mark.parametrize(
    ("count", "seed", "message"),
    [
        (-1, 0, "count is -1"),
        (True, 0, "count is True"),
        (1, -1, "seed is -1"),
    ],
)
def test_bad_numbers(count, seed, message):
    with pytest.raises(TaskError, match=message):
        choose_shots([opened(1)], count, seed)


@pytest.mark.shared
def test_real_few_shot_prompts(shared_data):
    pool = load_task("ag_news", shared_data / "ag_news/train_10k.csv.gz").questions
    shots = choose_shots(pool, 8, 0)
    assert Counter(shot.solution for shot in shots) == dict.fromkeys(pool[0].choices, 2)
    questions = load_task("ag_news", shared_data / "ag_news/test.csv.gz", limit=20).questions
    for question, prompted in zip(questions, with_shots(questions, shots), strict=True):
        assert prompted.context.count("Classify the news articles") == 1
        assert prompted.context.count("\nAnswer:") == 9
        assert prompted.context.endswith(question.context.split("\n\n", 1)[1])

    subject = "astronomy"
    dev, test = (
        [
            q
            for q in load_task("mmlu", shared_data / file).questions
            if q.metadata["subject"] == subject
        ]
        for file in ("mmlu/dev.csv", "mmlu/val.csv")
    )
    (prompted,) = with_shots([test[0]._replace(id="x")], dev)
    description = "The following are multiple choice questions (with answers) about astronomy.\n\n"
    solved = [q.context.removeprefix(description) + q.solution for q in dev]
    assert prompted.context == "\n\n".join([description.strip(), *solved]) + "\n\n" + (
        test[0].context.removeprefix(description)
    )
    assert len(dev) == 5

    trivia = load_open_task("triviaqa", shared_data / "triviaqa/triviaqa_dev_1000.jsonl")
    shots = choose_shots(trivia, 3, 1)
    for question in with_shots(trivia, shots)[:5]:
        assert question.context.startswith(f"{shots[0].context} {shots[0].aliases[0]}\n\nQ: ")
    own = next(q for q in with_shots(trivia, shots) if q.id == shots[0].id)
    assert own.context.count(shots[0].context) == 1
