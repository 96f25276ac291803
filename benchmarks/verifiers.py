"""Verdicts per second of each verifier: in process, in the pool, by plain math-verify; then with answers that hang.

    python -m benchmarks.verifiers                     about two minutes on two cores
    python -m benchmarks.verifiers --questions 50 --rounds 1     does it run at all

CPU time is that of all processes of a side, for machines that others use too.

Every round has new questions of the same kinds (half of the answers are right), so that no cache knows them; a first
round that is not counted warms all sides. Sides take turns.

in process     Verifier.judge, which stops a slow comparison by the clock but not a crash or a full memory
pool, 1 or 2   VerifierPool.verify_all with that many processes
math-verify    parse(label), parse(completion), verify: no limits, no order of extraction, no comparison as text
"""

import argparse
import json
import logging
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tulu_recipes.verifiers import Question, VerifierPool, find_verifier

Side = Callable[[list[Question]], int]  # questions -> how many are right
TICK = os.sysconf("SC_CLK_TCK")
REASONING = "We add the terms one after the other, and check that the sum of the first $%d$ is what it should be. "


def math_question(draw: random.Random) -> Question:
    a, b, c = (draw.randint(2, 999) for _ in range(3))
    label, same, other = draw.choice(
        [
            (f"{a * b}", f"{a * b}", f"{a * b + 1}"),
            (f"\\frac{{{a}}}{{{b}}}", f"\\dfrac{{{a * c}}}{{{b * c}}}", f"\\frac{{{a}}}{{{b + 1}}}"),
            (f"{a}x+{b}", f"{b} + {a}x", f"{b}x - {a}"),
            (f"{a}\\sqrt{{{b}}}", f"{a} \\cdot \\sqrt{{{b}}}", f"{a}\\sqrt{{{b + 1}}}"),
            (f"({a},{b})", f"\\left({a}, {b}\\right)", f"({b},{a + 1})"),
            (f"{a / 8:.3f}", f"\\frac{{{a}}}{{8}}", f"{a}"),
        ]
    )
    answer = same if draw.random() < 0.5 else other
    return Question("math", REASONING % a * draw.randint(2, 20) + f"So it is $\\boxed{{{answer}}}$.", label)


def gsm8k_question(draw: random.Random) -> Question:
    a, b = draw.randint(2, 99_999), draw.randint(2, 999)
    answer = a + b + (draw.random() < 0.5)
    return Question(
        "gsm8k", REASONING % a * draw.randint(2, 20) + f"{a} + {b} = {answer}\n#### {answer:,}", f"{a + b:,}"
    )


QUESTIONS: dict[str, Callable[[random.Random], Question]] = {"gsm8k": gsm8k_question, "math": math_question}
# A tower of powers is known by its text and refused at once; the other is given up after two seconds of CPU time.
HOSTILE = {"1 % towers": "9^{9^{9^9}}", "1 % hang": "\\binom{99999999}{4999999}"}


def in_process(semantics: str) -> Side:
    def side(questions: list[Question]) -> int:
        verdicts = [
            find_verifier(name, semantics).judge(answer, label, semantics) for name, answer, label in questions
        ]
        return sum(verdict.outcome == "correct" for verdict in verdicts)

    return side


def pooled(pool: VerifierPool, semantics: str) -> Side:
    return lambda questions: sum(v.outcome == "correct" for v in pool.verify_all(questions, semantics))


def plain_math_verify(questions: list[Question]) -> int:
    from math_verify import parse, verify

    return sum(verify(parse(f"${label}$"), parse(answer)) for _, answer, label in questions)


def seconds_of(side: Side, questions: list[Question]) -> tuple[float, float, int]:
    """(wall clock, CPU time of this process and its children, how many answers are right)."""
    start, start_cpu = time.perf_counter(), cpu_seconds()
    right = side(questions)
    return time.perf_counter() - start, cpu_seconds() - start_cpu, right


def cpu_seconds() -> float:
    """So far, of this process and of the children that run."""
    ticks = 0
    for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split():
        fields = Path(f"/proc/{child}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / TICK


def compare(name: str, sides: dict[str, Side], num: int, rounds: int, *, one_process: bool = False) -> None:
    """Prints verdicts/s and the ratios to the first side: min – median – max of the rounds.

    one_process: the sides share their caches, so that each needs questions of its own.
    """
    rates: dict[str, list[float]] = {side: [] for side in sides}
    costs: dict[str, list[float]] = {side: [] for side in sides}
    right = dict.fromkeys(sides, 0)
    for count in range(rounds + 1):
        for place, (title, side) in enumerate(sides.items()):
            draw = random.Random(f"{name} {count} {place if one_process else 0}")
            seconds, cpu, found = seconds_of(side, [QUESTIONS[name](draw) for _ in range(num)])
            if count:
                rates[title].append(num / seconds)
                costs[title].append(cpu / num)
                right[title] += found
    first = next(iter(rates))
    for title, found_rates in rates.items():
        ratios = [own / base for own, base in zip(found_rates, rates[first], strict=True)]
        cheaper = [base / own for own, base in zip(costs[title], costs[first], strict=True)]
        per_cpu = f"per CPU second {1 / statistics.median(costs[title]):>7,.0f}   {spread(cheaper)}"
        rate = f"{statistics.median(found_rates):>8,.0f}/s   {spread(ratios)}"
        print(f"  {title:<22}{rate}   {per_cpu}   {right[title] / num / rounds:.0%} right")


def spread(values: list[float]) -> str:
    return f"{min(values):.2f} – {statistics.median(values):.2f} – {max(values):.2f}"


def with_hostile(name: str, pool: VerifierPool, num: int, rounds: int) -> None:
    """One answer in a hundred cannot be computed."""
    hostile = Question("math", f"\\boxed{{{HOSTILE[name]}}}", "7")
    easy_rates, mixed_rates, seconds_each = [], [], []
    for count in range(rounds):
        draw = random.Random(f"hanging {count}")
        easy = [math_question(draw) for _ in range(num)]
        mixed = [hostile if place % 100 == 10 else question for place, question in enumerate(easy)]
        alone, *_ = seconds_of(pooled(pool, "fixed"), easy)
        together, *_ = seconds_of(pooled(pool, "fixed"), mixed)
        easy_rates.append(num / alone)
        mixed_rates.append(num / together)
        seconds_each.append((together - alone) / mixed.count(hostile))
    print(f"  {'none':<30}{statistics.median(easy_rates):>10,.0f}/s")
    ratios = [mixed / easy for mixed, easy in zip(mixed_rates, easy_rates, strict=True)]
    print(f"  {name:<30}{statistics.median(mixed_rates):>10,.0f}/s   {spread(ratios)}")
    print(f"  {'each of them adds':<30}{statistics.median(seconds_each):>10.2f} s to the batch")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verifiers", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--questions", type=int, default=2000, help="questions of a side in a round [2000]")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count [5]")
    options = parser.parse_args(argv)
    logging.disable(logging.WARNING)  # math-verify warns of what we take over from it, the time limit
    print(f"{os.cpu_count()} CPU cores · load {os.getloadavg()[0]:.1f} · {json.dumps(vars(options))}")
    with VerifierPool(1) as one, VerifierPool(2) as two:
        for name in QUESTIONS:
            for semantics in ("fixed", "as_released"):
                if getattr(find_verifier(name), "grade_as_released" if semantics != "fixed" else "grade") is None:
                    continue
                sides = {
                    "in process": in_process(semantics),
                    "pool, 1 process": pooled(one, semantics),
                    "pool, 2 processes": pooled(two, semantics),
                }
                print(f"\n{name}, {semantics}: verdicts/s, ratio to in process (min – median – max)")
                share = 1 if semantics == "fixed" else 20
                compare(name, sides, max(options.questions // share, 10), options.rounds)
        print("\nmath, fixed, beside plain math-verify in this process, which shares its caches")
        peers = {"in process": in_process("fixed"), "math-verify": plain_math_verify}
        compare("math", peers, options.questions, options.rounds, one_process=True)
        print("\nmath with hostile answers, pool of 2 processes: verdicts/s, ratio to none (min – median – max)")
        for name in HOSTILE:
            with_hostile(name, two, options.questions, min(options.rounds, 2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
