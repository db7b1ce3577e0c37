"""Genomes, operators and continuous encodings, for spaces of any number of genes and choices."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from genomes import Gene, Genome, SearchSpace
from genomes.continuous import Logits, Scaled
from genomes.operators import mean_hamming, neighbours, reset

choices_of_spaces = st.lists(st.integers(1, 12), min_size=1, max_size=10)
seeds = st.integers(0, 2**32 - 1)
numbers = st.floats(allow_nan=False)  # infinities too


@st.composite
def gene_vectors(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Choices, and genes within them."""
    choices = draw(choices_of_spaces)
    return choices, [draw(st.integers(0, count - 1)) for count in choices]


def inside(genes: tuple[int, ...] | list[int], choices: list[int]) -> bool:
    return len(genes) == len(choices) and all(
        type(gene) is int and 0 <= gene < count for gene, count in zip(genes, choices, strict=True)
    )


@given(gene_vectors(), st.floats(0, 1), seeds)
def test_reset_stays_inside_the_space(
    vector: tuple[list[int], list[int]], rate: float, seed: int
) -> None:
    choices, genes = vector
    assert inside(reset(genes, choices, rate, np.random.default_rng(seed)), choices)


@given(gene_vectors(), seeds)
def test_reset_at_rate_1_changes_just_the_genes_with_another_choice(
    vector: tuple[list[int], list[int]], seed: int
) -> None:
    choices, genes = vector
    varied = reset(genes, choices, 1.0, np.random.default_rng(seed))
    assert [a != b for a, b in zip(genes, varied, strict=True)] == [n > 1 for n in choices]


@given(gene_vectors())
def test_neighbours_are_distinct_inside_the_space_one_gene_away_and_all_there_are(
    vector: tuple[list[int], list[int]],
) -> None:
    choices, genes = vector
    around = list(neighbours(genes, choices))
    assert len(around) == len(set(around)) == sum(choices) - len(choices)
    for neighbour in around:
        assert inside(neighbour, choices)
        assert sum(a != b for a, b in zip(genes, neighbour, strict=True)) == 1


@given(
    st.tuples(st.integers(2, 12), st.integers(1, 8)).flatmap(
        lambda shape: arrays(np.int64, shape, elements=st.integers(0, 4))
    )
)
def test_mean_hamming_is_the_mean_over_pairs(population: np.ndarray) -> None:
    pairs = itertools.combinations(population, 2)
    assert mean_hamming(population) == pytest.approx(np.mean([(a != b).sum() for a, b in pairs]))


@pytest.mark.parametrize("encoding", [Scaled, Logits])
@given(vector=gene_vectors())
def test_decode_reads_back_what_encode_wrote(
    encoding: type[Scaled | Logits], vector: tuple[list[int], list[int]]
) -> None:
    choices, genes = vector
    coded = encoding(choices)
    written = coded.encode(genes)
    assert written.shape == (coded.dimensions,)
    assert ((written >= 0) & (written <= 1)).all()
    assert coded.decode(written) == tuple(genes)


@pytest.mark.parametrize("encoding", [Scaled, Logits])
@given(choices=choices_of_spaces, data=st.data())
def test_decode_stays_inside_the_space_whatever_the_vector(
    encoding: type[Scaled | Logits], choices: list[int], data: st.DataObject
) -> None:
    coded = encoding(choices)
    vector = data.draw(st.lists(numbers, min_size=coded.dimensions, max_size=coded.dimensions))
    assert inside(coded.decode(vector), choices)


@given(st.integers(1, 12), st.floats(0, 1, exclude_max=True))
def test_scaled_cuts_the_unit_interval_into_equal_parts(count: int, number: float) -> None:
    (gene,) = Scaled([count]).decode([number])
    assert gene / count <= number * (1 + 1e-15)
    assert number <= (gene + 1) / count * (1 + 1e-15)


def test_scaled_takes_numbers_outside_the_unit_interval_for_its_ends() -> None:
    vector = [-np.inf, -0.1, 0.0, 1.0, 1.1, np.inf]
    assert Scaled([5] * 6).decode(vector) == (0, 0, 0, 4, 4, 4)


def test_logits_take_the_largest_number_and_the_first_of_equal_ones() -> None:
    assert Logits([3, 1, 2]).decode([0.1, 0.3, 0.2, -9.0, 0.5, 0.5]) == (1, 0, 0)


@given(gene_vectors(), st.text(min_size=1))
def test_a_genome_survives_json(vector: tuple[list[int], list[int]], space: str) -> None:
    genome = Genome(space, tuple(vector[1]))
    again = Genome.from_json(json.loads(json.dumps(genome.to_json())))
    assert again == genome
    assert hash(again) == hash(genome)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["space", "genes", "other"]), json_values))
def test_from_json_refuses_what_is_no_genome(data: dict[str, object]) -> None:
    space, genes = data.get("space"), data.get("genes")
    integers = isinstance(genes, list) and all(type(gene) is int for gene in genes)
    assume(not (isinstance(space, str) and integers))
    with pytest.raises(ValueError, match="genes"):
        Genome.from_json(data)


@pytest.mark.parametrize("genes", [[1, True], [1, 2.0], [1, "2"], [[1]], [None], "12", (1, 2)])
def test_from_json_takes_nothing_but_a_list_of_integers(genes: object) -> None:
    with pytest.raises(ValueError, match="integers"):
        Genome.from_json({"space": "toy/v1", "genes": genes})


@given(gene_vectors(), seeds)
def test_a_space_of_any_size_reads_back_its_genomes(
    vector: tuple[list[int], list[int]], seed: int
) -> None:
    choices, genes = vector
    space = SearchSpace(
        "toy/v1", [Gene(f"g{i}", tuple(map(str, range(n)))) for i, n in enumerate(choices)]
    )
    sample = space.sample(np.random.default_rng(seed))
    assert inside(sample.genes, choices)
    for genome in (sample, space.genome(genes)):
        assert space.parse(space.describe(genome)) == genome
        assert space.key(genome) == space.key(space.canonical(genome))


@given(choices_of_spaces, st.lists(st.integers(-2, 14), max_size=11))
def test_a_space_refuses_genes_outside_it(choices: list[int], genes: list[int]) -> None:
    space = SearchSpace(
        "toy/v1", [Gene(f"g{i}", tuple(map(str, range(n)))) for i, n in enumerate(choices)]
    )
    if inside(genes, choices):
        assert space.genome(genes).genes == tuple(genes)
    else:
        with pytest.raises(ValueError, match="toy/v1"):
            space.genome(genes)
