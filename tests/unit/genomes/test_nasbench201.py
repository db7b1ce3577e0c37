"""The space against the benchmark's own table, and against what it says of itself."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from genomes import Genome, NASBench201
from genomes.nasbench201 import CONV_3X3, NONE, SKIP
from tests.helpers.tables import genes_of, nasbench201, needs_table

SPACE = NASBench201()
EVERY = [SPACE.genome(genes) for genes in itertools.product(range(5), repeat=6)]
BEST_CIFAR10 = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
    "+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
)


def written(digits: str) -> Genome:
    return SPACE.genome(genes_of(digits))


@needs_table
def test_describe_writes_the_official_string_of_every_cell() -> None:
    table = nasbench201()
    assert len(table) == SPACE.size
    described = [SPACE.describe(written(digits)) for digits in table["genome"]]
    assert described == table["arch"].tolist()


@needs_table
def test_parse_reads_the_official_string_of_every_cell() -> None:
    table = nasbench201()
    parsed = [SPACE.parse(arch) for arch in table["arch"]]
    assert parsed == [written(digits) for digits in table["genome"]]


@needs_table
def test_official_class_is_the_isomorphism_class_of_the_table() -> None:
    table = nasbench201()
    classes = [SPACE.official_class(written(digits)) for digits in table["genome"]]
    pairs = set(zip(classes, table["iso_id"], strict=True))
    assert len(pairs) == len(set(classes)) == table["iso_id"].nunique() == 6466


def test_the_best_cell_is_described_as_published() -> None:
    assert SPACE.describe(written("333132")) == BEST_CIFAR10
    assert SPACE.parse(f"  {BEST_CIFAR10}\n") == written("333132")


def test_every_genome_reads_back_from_its_description_and_its_genes() -> None:
    assert [SPACE.parse(SPACE.describe(genome)) for genome in EVERY] == EVERY
    assert [SPACE.parse(genome.text) for genome in EVERY] == EVERY


def test_there_are_5260_networks() -> None:
    assert len({SPACE.key(genome) for genome in EVERY}) == 5260


def test_a_genome_shares_its_key_with_its_canonical_one_which_is_its_own() -> None:
    for genome in EVERY:
        canonical = SPACE.canonical(genome)
        assert SPACE.key(canonical) == SPACE.key(genome)
        assert SPACE.canonical(canonical) == canonical


def test_a_canonical_genome_has_no_dead_edge_and_no_more_edges_than_the_live_ones() -> None:
    for genome in EVERY:
        canonical = SPACE.canonical(genome)
        edges = [op != NONE for op in canonical.genes]
        assert list(SPACE.live(canonical)) == edges
        assert sum(edges) <= sum(SPACE.live(genome))


def test_an_edge_is_live_just_when_it_is_on_a_path_from_input_to_output() -> None:
    paths = [("0>1", "1>2", "2>3"), ("0>1", "1>3"), ("0>2", "2>3"), ("0>3",)]
    names = [gene.name for gene in SPACE.genes]
    for genome in EVERY[::7]:
        carried = {name for name, op in zip(names, genome.genes, strict=True) if op != NONE}
        on_a_path = {name for path in paths if carried.issuperset(path) for name in path}
        live = {name for name, lives in zip(names, SPACE.live(genome), strict=True) if lives}
        assert live == on_a_path


def test_dead_edges_do_not_change_the_key() -> None:
    for genome in EVERY[::7]:
        alive = zip(genome.genes, SPACE.live(genome), strict=True)
        stripped = SPACE.genome(op if lives else NONE for op, lives in alive)
        assert SPACE.key(stripped) == SPACE.key(genome)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("120121", "110221", id="a-skip-moved"),
        pytest.param("023040", "023000", id="a-pooling-without-input"),
        pytest.param("300200", "000200", id="a-convolution-without-reader"),
        pytest.param("440011", "100440", id="a-pooling-of-the-same-sum-twice"),
    ],
)
def test_spellings_of_one_network_share_a_key(one: str, other: str) -> None:
    assert SPACE.key(written(one)) == SPACE.key(written(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("421211", "241411", id="two-convolutions-and-one-used-twice"),
        pytest.param("000200", "000300", id="another-op"),
        pytest.param("000100", "100110", id="the-input-once-and-twice"),
        pytest.param("000000", "000100", id="nothing-and-the-input"),
    ],
)
def test_different_networks_have_different_keys(one: str, other: str) -> None:
    assert SPACE.key(written(one)) != SPACE.key(written(other))


def test_the_official_class_is_too_fine_and_too_coarse_to_be_a_key() -> None:
    official = SPACE.official_class
    assert official(written("120121")) != official(written("110221"))
    assert official(written("421211")) == official(written("241411"))


def test_keys_begin_with_a_letter_so_that_no_table_reader_makes_them_numbers() -> None:
    assert all(SPACE.key(genome)[0].isalpha() for genome in EVERY[::97])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("", "is not a genome of nasbench201/v1; write 6 genes: 0-1-2-3-", id="empty"),
        pytest.param("resnet", "'resnet' is not a genome", id="a-name"),
        pytest.param("333132", "has 6 genes, got 1", id="no-hyphens"),
        pytest.param("3-3-3-1-3", "has 6 genes, got 5", id="a-gene-too-few"),
        pytest.param("3-3-3-1-3-2-0", "has 6 genes, got 7", id="a-gene-too-many"),
        pytest.param("3-3-3-1-3-5", "gene 2>3 of nasbench201/v1 is 5; allowed: 0 to 4", id="range"),
        pytest.param("3-3-3-1-3--2", "is not a genome", id="a-negative-gene"),
        pytest.param("3-3-3-1-3-²", "is not a genome", id="a-digit-of-another-script"),
        pytest.param("|", "is not of the form", id="a-bar"),
        pytest.param(
            BEST_CIFAR10.replace("nor_conv_1x1", "nor_conv_5x5"),
            "unknown op 'nor_conv_5x5'; known: none, skip_connect",
            id="an-unknown-op",
        ),
        pytest.param(BEST_CIFAR10[:-16], "is not of the form", id="cut-off"),
        pytest.param(BEST_CIFAR10 + BEST_CIFAR10, "is not of the form", id="twice"),
        pytest.param(BEST_CIFAR10.replace("~2", "~1"), "is not of the form", id="a-wrong-source"),
        pytest.param(BEST_CIFAR10.replace("|+|", "|"), "is not of the form", id="without-nodes"),
    ],
)
def test_parse_refuses_what_is_malformed_and_says_what(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        SPACE.parse(text)


@pytest.mark.parametrize("genes", [(0,) * 5, (0,) * 7, (0, 0, 0, 0, 0, 5), (-1, 0, 0, 0, 0, 0)])
def test_genome_refuses_genes_outside_the_space(genes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="nasbench201/v1"):
        SPACE.genome(genes)


def test_samples_are_the_generators_and_use_every_choice_of_every_gene() -> None:
    samples = [SPACE.sample(rng).genes for rng in [np.random.default_rng(3)] for _ in range(200)]
    again = [SPACE.sample(rng).genes for rng in [np.random.default_rng(3)] for _ in range(200)]
    assert samples == again
    for column in zip(*samples, strict=True):
        assert set(column) == set(range(5))


def test_the_largest_cell_convolves_on_every_edge() -> None:
    assert SPACE.largest() == SPACE.genome([CONV_3X3] * 6)


def test_the_drawing_shows_every_op_and_which_ones_are_dead() -> None:
    graph = SPACE.graph(SPACE.genome([CONV_3X3, NONE, NONE, SKIP, NONE, NONE]))
    assert graph.nodes == ("0", "1", "2", "3")
    assert [(e.source, e.target, e.op, e.live) for e in graph.edges] == [
        ("0", "1", "nor_conv_3x3", False),
        ("0", "3", "skip_connect", True),
    ]
