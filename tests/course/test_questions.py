"""The question bank: the GIFT parses, says what it should, and its numbers are right."""

import math
import re
import statistics
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanda.sources.download import CHECKOUT
from wanda_course import questions

NOTEBOOKS = [f"{number:02}" for number in range(14)]
PLAIN = r"[^~=#{}:\n]+"  # what may stand between the special characters of GIFT


def protected(text):
    """Text with each escaped character replaced by one of Unicode's private ones, as Moodle does it."""
    text = re.sub(r"\\([\\~=#{}:])", lambda found: chr(0xE000 + ord(found[1])), text)
    assert "\\" not in text, text
    return text


def restored(text):
    return re.sub("[\ue000-\ue0ff]", lambda found: chr(ord(found[0]) - 0xE000), text)


def match(pattern, text):
    found = re.fullmatch(pattern, text)
    assert found, text
    return [restored(part) if part else part for part in found.groups()]


def parse(text):
    """The questions of a GIFT file, of the part of GIFT that the bank uses: anything else is an error."""
    found, category = [], None
    for part in protected(text).strip().split("\n\n"):
        if part.startswith("$CATEGORY"):
            (category,) = match(r"\$CATEGORY: wanda/(\d\d)", part)
        elif part.startswith("// [id"):
            comment, head, *lines, end = part.split("\n")
            assert end == "}"
            assert all(line[0] == "\t" for line in lines)
            (key,) = match(r"// \[id:(\S+)\]", comment)
            title, stem = match(rf"::({PLAIN})::\[plain\]({PLAIN}) {{", head)
            lines = [line[1:] for line in lines]
            why = match(rf"####({PLAIN})", lines.pop())[0] if lines[-1].startswith("####") else None
            common = {"id": key, "category": category, "title": title, "text": stem, "why": why}
            found.append(common | answers(lines))
        else:
            assert re.fullmatch(r"// [^\n]*", part), part
    return found


def answers(lines):
    if lines[0].startswith("#"):
        (line,) = lines
        answer, tolerance = map(float, match(r"#(-?[\d.e+-]+):([\d.e+-]+)", line))
        return {"kind": "numerical", "answer": answer, "tolerance": tolerance}
    if lines[0].startswith(("TRUE", "FALSE")):
        (line,) = lines
        said, wrong, right = match(rf"(TRUE|FALSE)#({PLAIN})#({PLAIN})", line)
        return {"kind": "true/false", "answer": said == "TRUE", "if_wrong": wrong, "if_right": right}
    if " -> " in lines[0]:
        return {"kind": "matching", "pairs": [match(rf"=({PLAIN}) -> ({PLAIN})", line) for line in lines]}
    options = [match(rf"([=~])({PLAIN})#({PLAIN})", line) for line in lines]
    return {"kind": "choice" if any(sign == "~" for sign, *_ in options) else "short", "options": options}


BANK = parse(questions.bank(0))
SOURCE = {question["id"]: question for question in [*questions.fixed(), *questions.drawn(0)]}


@given(st.text(st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(r"~=#{}:\ "), min_size=1))
def test_escaped_text_comes_back(text):
    assert restored(protected(questions.escape(text))) == text
    assert not set(protected(questions.escape(text))) & set("~=#{}:\\")


def test_the_bank_holds_what_was_written_and_is_large_enough():
    assert len(BANK) == len(SOURCE) >= 80
    assert Counter(question["kind"] for question in BANK).keys() == questions.KINDS.keys()
    per_notebook = Counter(question["category"] for question in BANK)
    assert set(per_notebook) == set(NOTEBOOKS)
    assert min(per_notebook.values()) >= 5
    for question in BANK:
        source = SOURCE[question["id"]]  # ids are unique: as many as questions
        assert question["category"] == question["id"][:2]
        assert question["title"] == f"{question['id']} {source['title']}"
        assert (question["kind"], question["text"]) == (source["kind"], source["text"])
        assert question["why"] == source.get("why")


@pytest.mark.parametrize("question", BANK, ids=lambda question: question["id"])
def test_each_question_has_one_answer_and_feedback_to_every_other(question):
    source = SOURCE[question["id"]]
    kind = question["kind"]
    if kind == "choice":
        signs = [sign for sign, *_ in question["options"]]
        assert signs.count("=") == 1
        assert len(signs) >= 3
        texts = [text for _, text, _ in question["options"]]
        assert len(set(texts)) == len(texts)
        assert not any(re.search("(all|none|any) of (the|these)", text, re.IGNORECASE) for text in texts)
        expected = {source["right"]: source["because"]} | dict(source["wrong"])
        assert {text: feedback for _, text, feedback in question["options"]} == expected
    elif kind == "true/false":
        assert question["answer"] == source["answer"]
        assert (question["if_wrong"], question["if_right"]) == (source["if_wrong"], source["if_right"])
        assert question["if_wrong"] != question["if_right"]
    elif kind == "matching":
        assert question["pairs"] == source["pairs"]
        assert question["why"]
        assert len(question["pairs"]) >= 3
        for side in zip(*question["pairs"], strict=True):
            assert len(set(side)) == len(side)
    elif kind == "short":
        assert [text for _, text, _ in question["options"]] == source["answers"]
        assert question["why"]
    else:
        assert question["answer"] == pytest.approx(source["answer"], rel=1e-9)
        assert question["tolerance"] == pytest.approx(source["tolerance"])
        assert question["why"]


def test_the_options_alone_do_not_give_the_answer_away():
    choices = [question["options"] for question in BANK if question["kind"] == "choice"]
    clues = Counter()
    for options in choices:
        right = next(text for sign, text, _ in options if sign == "=")
        lengths = sorted(len(text) for _, text, _ in options)
        clues["longest"] += len(right) == lengths[-1]
        clues["shortest"] += len(right) == lengths[0]
        clues[f"place {[sign for sign, *_ in options].index('=')}"] += 1
    assert max(clues.values()) <= 0.45 * len(choices), clues
    said = [question["answer"] for question in BANK if question["kind"] == "true/false"]
    assert 0 < sum(said) < len(said)


def numbers(value):
    if isinstance(value, dict):
        value = value.values()
    return [value] if isinstance(value, (int, float)) else [number for part in value for number in numbers(part)]


@pytest.mark.parametrize("seed", range(25))
def test_answers_equal_those_of_a_slow_way(seed):
    for question in questions.drawn(seed):
        drawn = question["given"]
        slow = SLOW[question["id"]](**drawn)
        assert slow == pytest.approx(question["answer"], rel=1e-6, abs=1e-6), question["id"]
        assert question["tolerance"] <= max(abs(slow) / 20, 0.03), question["id"]
        shown = set(map(float, re.findall(r"-?\d+(?:\.\d+)?", question["text"])))
        hidden = {"number"}  # said in words
        assert set(map(float, numbers({k: v for k, v in drawn.items() if k not in hidden}))) <= shown


def test_seeds_give_other_numbers_and_the_same_seed_the_same_file(tmp_path):
    for one, other in pairwise([questions.drawn(seed) for seed in range(4)]):
        differ = sum(a["text"] != b["text"] for a, b in zip(one, other, strict=True))
        assert differ >= len(one) - 3  # a template may draw the same numbers twice
    for folder in ("one", "two"):
        questions.main(["--seed", "7", "--out", str(tmp_path / folder)])
    one, two = ((tmp_path / folder / questions.FILE).read_bytes() for folder in ("one", "two"))
    assert one == two
    assert one.decode() == questions.bank(7)


def test_the_committed_file_is_that_of_seed_0():
    committed = CHECKOUT / "docs" / "teaching" / questions.FILE
    assert committed.read_text(encoding="utf-8") == questions.bank(0), (
        "python -m wanda_course.questions --out docs/teaching"
    )


def bitmap(out, width, share):
    kept = out * width - out * width * share // 100
    return (out * width + 16 * kept) / 8000


def rms_norm(small, massive, gain):
    return gain * massive / math.sqrt((3 * small**2 + massive**2) / 4)


def peak(values):
    sizes = sorted(map(abs, values))
    return sizes[-1] / sizes[len(sizes) // 2]


def starved(rows, number):
    order = sorted((abs(weight), i, j) for i, row in enumerate(rows) for j, weight in enumerate(row))
    return 4 - sum(i == number for _, i, _ in order[:6])


def output_error(weights, tokens):
    lost = sum((weights[1] * second) ** 2 for _, second in tokens)
    whole = sum((weights[0] * first + weights[1] * second) ** 2 for first, second in tokens)
    return 100 * math.sqrt(lost / whole)


def wanda_row(weights, norms):
    return math.hypot(*sorted(abs(weight) * norm for weight, norm in zip(weights, norms, strict=True))[:3])


def pair_price(weights, tokens):
    return math.hypot(*(weights[0] * first + weights[1] * second for first, second in tokens))


def distance(dense, pruned):
    return statistics.mean(math.dist(one, two) / math.hypot(*one) for one, two in zip(dense, pruned, strict=True))


def lowest(function, low=-100.0, high=100.0):
    """Where a convex function is lowest, by thirds."""
    for _ in range(300):
        third = (high - low) / 3
        if function(low + third) < function(high - third):
            high -= third
        else:
            low += third
    return (low + high) / 2


def error_of_move(row, hessian):
    (a, b), (_, c) = hessian
    return lambda move: row[0] ** 2 * a - 2 * row[0] * move * b + move**2 * c


def surgeon_price(row, hessian):
    error = error_of_move(row, hessian)
    return error(lowest(error))


def surgeon_move(row, hessian):
    return row[1] + lowest(error_of_move(row, hessian))


def text_perplexity(long, short, losses):
    return math.exp(statistics.mean([losses[0]] * long + [losses[1]] * short))


def paired_error(first, second):
    return statistics.stdev(a - b for a, b in zip(first, second, strict=True)) / 2


def pattern_bits(keep, size, bits):
    place = next(count for count in range(10) if 2**count >= size)
    return sum(bits + place for _ in range(keep)) / size


def speedup(tokens, bandwidth, rate):
    dense, sparse = (max(kept / bandwidth, work * tokens / rate) for kept, work in ((2, 2), (9 / 8, 1)))
    return dense / sparse


def chance(one, two):
    grid = [(i < one, j < two) for i in range(100) for j in range(100)]
    return sum(a and b for a, b in grid) / sum(a or b for a, b in grid)


def mixture(norms, tokens, share):
    one, two = (norm / math.sqrt(count) for norm, count in zip(norms, tokens, strict=True))
    return math.sqrt(statistics.mean([one**2] * share + [two**2] * (100 - share)))


def adapters(blocks, width, inner, rank):
    return sum(rank * width + width * rank + rank * width + inner * rank for _ in range(blocks))


def gap_closed(pruned, after, dense, dense_after):
    before = math.log(pruned) - math.log(dense)
    return (before - (math.log(after) - math.log(dense_after))) / before


def accuracy_error(items, count):
    return 100 * statistics.stdev([1.0] * count + [0.0] * (items - count)) / math.sqrt(items)


def items_needed(changed, points, errors):
    variance = changed / 100 - (points / 100) ** 2
    return next(n for n in range(1, 10**5) if points / 100 >= errors * math.sqrt(variance / n) - 1e-12)


def ratio(baseline, ours):
    return math.prod(a / b for a, b in zip(ours, baseline, strict=True)) ** (1 / len(ours))


def owl(shares):
    kept = [16 * (share - min(shares)) / (max(shares) - min(shares)) for share in shares]
    return 50 - (max(kept) - statistics.mean(kept))


def swap(row, diagonal, links):
    h = [[diagonal[0], links[0], links[1]], [links[0], diagonal[1], links[2]], [links[1], links[2], diagonal[2]]]

    def error(gone):
        return sum(row[i] * h[i][j] * row[j] for i in gone for j in gone)

    return error([1]) - error([0])


def gradual(count, steps, step):
    return math.floor(count * (1 - ((steps - step) / steps) ** 3) + 0.5)


def processes(passes, select, windows, count):
    shares = [0] * count
    for window in range(windows):
        shares[window % count] += 1
    return max(shares) * passes / windows + select


SLOW = {
    "00.n1": bitmap,
    "00.n2": lambda values: (1 / math.prod(values)) ** 0.25,
    "01.n1": rms_norm,
    "01.n2": peak,
    "02.n1": starved,
    "02.n2": output_error,
    "03.n1": wanda_row,
    "03.n2": pair_price,
    "04.n1": distance,
    "04.n2": lambda real, filler: math.hypot(*real),
    "05.n1": surgeon_price,
    "05.n2": surgeon_move,
    "06.n1": text_perplexity,
    "06.n2": paired_error,
    "07.n1": pattern_bits,
    "07.n2": speedup,
    "08.n1": chance,
    "08.n2": mixture,
    "09.n1": adapters,
    "09.n2": gap_closed,
    "10.n1": accuracy_error,
    "10.n2": items_needed,
    "11.n1": ratio,
    "11.n2": owl,
    "12.n1": swap,
    "12.n2": gradual,
    "13.n1": processes,
    "13.n2": lambda one, two, tokens: math.hypot(one, two),
}


def test_the_pages_state_how_many_questions_there_are():
    count = len(questions.fixed()) + len(questions.drawn(0))
    for page in ("docs/teaching/index.md", "CHANGELOG.md"):
        assert f" {count} questions " in (CHECKOUT / page).read_text(encoding="utf-8"), page
