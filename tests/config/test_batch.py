import pytest

from tulu_recipes.config.batch import BatchPlan, solve_batch
from tulu_recipes.errors import RecipeError


def refusal(
    size: int, processes: int, per_device: int | None = None, accumulation: int | None = None
) -> tuple[str, str, str]:
    with pytest.raises(RecipeError) as caught:
        solve_batch(size, processes, per_device, accumulation, where="r.yaml line 3")
    problem = caught.value.problems[0]
    assert problem.where == "r.yaml line 3"
    return problem.slug, problem.what, problem.mend


def test_the_global_size_alone_gives_one_sequence_per_device_and_accumulates_the_rest() -> None:
    assert solve_batch(128, 8) == BatchPlan(1, 16, 8, 128)
    assert solve_batch(128, 1) == BatchPlan(1, 128, 1, 128)
    assert solve_batch(8, 8) == BatchPlan(1, 1, 8, 8)


def test_a_stated_part_is_kept_and_the_other_is_solved() -> None:
    assert solve_batch(128, 8, 4, None) == BatchPlan(4, 4, 8, 128)
    assert solve_batch(128, 8, None, 2) == BatchPlan(8, 2, 8, 128)
    assert solve_batch(128, 8, 2, 8) == BatchPlan(2, 8, 8, 128)


def test_without_a_global_size_trl_s_product_defines_it() -> None:
    assert solve_batch(None, 2) == BatchPlan(8, 1, 2, 16)
    assert solve_batch(None, 4, 3, 5) == BatchPlan(3, 5, 4, 60)


def test_24_processes_cannot_make_128_and_are_told_what_can() -> None:
    slug, what, mend = refusal(128, 24)
    assert slug == "batch-not-divisible"
    assert "24 processes cannot make a global batch of 128 (24 × 5 = 120, 24 × 6 = 144)" in what
    assert mend == "use 16 or 32 processes (any of 1, 2, 4, 8, 16, 32, 64, 128 works)."


def test_more_processes_than_sequences_are_refused_with_the_product_above_only() -> None:
    _, what, mend = refusal(4, 8)
    assert "(8 × 1 = 8)" in what
    assert mend == "use 4 processes (any of 1, 2, 4 works)."


def test_a_stated_per_device_size_narrows_the_counts_that_work() -> None:
    # 128 / 8 = 16 processes' worth: 12 x 8 = 96, 96 x 1 = 96, 96 x 2 = 192
    _, what, mend = refusal(128, 12, 8)
    assert "12 processes with per_device_train_batch_size 8" in what
    assert "(12 × 8 × 1 = 96, 12 × 8 × 2 = 192)" in what
    assert mend.startswith("use 8 or 16 processes (any of 1, 2, 4, 8, 16 works)")


def test_a_per_device_size_that_no_count_could_use_is_named() -> None:
    _, _, mend = refusal(128, 8, 3)
    assert mend == "choose per_device_train_batch_size so that it divides 128, or remove it."
    _, _, mend = refusal(128, 8, None, 5)
    assert mend.startswith("choose gradient_accumulation_steps")


def test_removing_the_per_device_size_is_offered_where_that_would_do() -> None:
    _, _, mend = refusal(96, 6, 32)
    assert mend.endswith("or remove per_device_train_batch_size.")


def test_a_full_statement_that_contradicts_itself_shows_the_product() -> None:
    slug, what, mend = refusal(128, 8, 4, 2)
    assert slug == "batch-contradiction"
    assert "8 processes × per_device_train_batch_size 4 × gradient_accumulation_steps 2 = 64" in what
    assert "gradient_accumulation_steps: 4" in mend
    assert "remove gradient_accumulation_steps, or both" in refusal(100, 8, 4, 2)[2]


def test_every_solved_plan_multiplies_to_the_global_size_and_every_refusal_is_right() -> None:
    for size in range(1, 65):
        for processes in range(1, 20):
            for per_device in (None, 1, 2, 3):
                divisible = any(size == processes * (per_device or 1) * steps for steps in range(1, size + 1))
                if divisible:
                    plan = solve_batch(size, processes, per_device)
                    made = plan.num_processes * plan.per_device_train_batch_size * plan.gradient_accumulation_steps
                    assert made == size == plan.global_batch_size
                else:
                    assert refusal(size, processes, per_device)[0] == "batch-not-divisible"
