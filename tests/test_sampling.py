"""The dice: they follow the probabilities, and belong to one conversation."""

import torch

from personaplex_lite.model.sampling import exponential, sample

SEEDS = torch.arange(20_000)
LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -3.0, 1.5])


def drawn(temperature=1.0, top_k=8, t=0, row=0, seeds=SEEDS):
    return sample(LOGITS.expand(len(seeds), -1), temperature, top_k, seeds, torch.full_like(seeds, t), row)


def share(tokens, n=8):
    return torch.bincount(tokens, minlength=n) / len(tokens)


def near(found, wanted):
    """Within 4.5 standard deviations of a fair draw."""
    return ((found - wanted).abs() <= 4.5 * (wanted * (1 - wanted) / len(SEEDS)).sqrt()).all()


def test_zero_temperature_and_one_candidate_are_the_likeliest():
    assert (drawn(temperature=0) == 0).all() and (drawn(top_k=1) == 0).all()


def test_frequencies_follow_softmax():
    for temperature in (0.5, 1.0, 2.0):
        assert near(share(drawn(temperature)), torch.softmax(LOGITS / temperature, -1))


def test_only_the_top_k():
    p = torch.softmax(LOGITS, -1)
    p[[3, 4, 5, 6, 2]] = 0
    assert near(share(drawn(top_k=3)), p / p.sum())
    assert near(share(drawn(top_k=100)), torch.softmax(LOGITS, -1))     # more than there are: all of them


def test_one_conversation_over_time_is_fair():
    seeds, t = torch.full_like(SEEDS, 5), SEEDS
    assert near(share(sample(LOGITS.expand(len(t), -1), 1.0, 8, seeds, t, 3)), torch.softmax(LOGITS, -1))


def test_rows_steps_and_seeds_are_independent():
    p = torch.softmax(LOGITS, -1)
    first = drawn()
    for other in (drawn(row=1), drawn(row=16), drawn(t=1), drawn(seeds=SEEDS + 1)):
        assert near(share(first * 8 + other, 64), (p[:, None] * p).flatten())


def test_noise_is_exponential_and_never_degenerate():
    noise = exponential(SEEDS, SEEDS * 0, 7, torch.arange(50).expand(len(SEEDS), -1))
    assert noise.isfinite().all() and (noise > 0).all()
    assert abs(noise.mean() - 1) < 0.01 and abs(noise.var() - 1) < 0.02


def test_every_row_and_any_seed_can_draw():
    for seed in (0, -1, 2 ** 62, -2 ** 63):
        for row in range(17):
            assert 0 <= int(drawn(seeds=torch.tensor([seed]), row=row)) < 8


def test_a_row_draws_the_same_in_any_company():
    assert torch.equal(drawn()[100:101], drawn(seeds=SEEDS[100:101]))


def test_global_generator_has_no_part():
    torch.manual_seed(1)
    one, before = drawn(), torch.get_rng_state()
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(one, drawn()) and not torch.equal(one, drawn(t=1))
