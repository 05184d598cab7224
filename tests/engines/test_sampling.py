import numpy as np
import torch

from marl_llm.engines.sampling import draw, uniforms


def test_uniforms_depend_on_seed_and_index_alone_and_fill_the_unit_interval() -> None:
    seeds, indices = (np.array(x, dtype=np.uint64).ravel() for x in np.meshgrid(range(200), range(200)))
    numbers = uniforms(seeds, indices)
    assert np.array_equal(numbers[::-1], uniforms(seeds[::-1], indices[::-1]))
    assert len(np.unique(numbers)) == 40_000
    counts, _ = np.histogram(numbers, bins=20, range=(0, 1))
    # Bins of 2000 +- 44; neighbouring seeds and neighbouring indices are uncorrelated within 1/sqrt(40000).
    assert abs(counts - 2000).max() < 5 * 44
    table = numbers.reshape(200, 200)
    for one, next_one in ((table[1:], table[:-1]), (table[:, 1:], table[:, :-1])):
        assert abs(np.corrcoef(one.ravel(), next_one.ravel())[0, 1]) < 0.025


def test_draws_invert_the_cumulative_distribution_and_skip_what_is_impossible() -> None:
    probabilities = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]]).repeat(5, 1)
    uniforms_B = torch.tensor([0.0, 0.2499, 0.25, 0.9, 1 - 2.0**-53], dtype=torch.float64)
    assert draw(probabilities.log(), uniforms_B).tolist() == [1, 1, 3, 3, 3]
