"""What is known of a network from several folders, and what is not taken for it."""

from __future__ import annotations

from pathlib import Path

from evonas.records.results import full_trainings

RUN = "space: {name: nasbench201, channels: 4}\ndata: {name: digits, subset: 500, val: 0.2}\n"
TRAINING = RUN.replace("subset: 500, ", "")
HEADER = "key,epochs,test_error,test_error_se,test_images\n"


def test_the_longest_full_training_of_the_same_network_on_the_same_data_counts(
    tmp_path: Path,
) -> None:
    folders = {
        "run-g1": (TRAINING, f"{HEADER}g1,30,0.2,0.01,90\n"),
        "lucky": (TRAINING, f"{HEADER}g1,10,0.1,0.01,90\n"),
        "wider": (TRAINING.replace("4", "8"), f"{HEADER}g1,99,0.01,0.01,90\n"),
        "other": (TRAINING.replace("digits", "mnist"), f"{HEADER}g1,99,0.01,0.01,90\n"),
        "empty": (TRAINING, HEADER),
        "text": (TRAINING, f"{HEADER}g1,many,few,,\n"),
        "list": ("[]\n", f"{HEADER}g1,99,0.01,0.01,90\n"),
        "yaml": ("[\n", f"{HEADER}g1,99,0.01,0.01,90\n"),
        "binary": (TRAINING, "\x00\x01"),
        "table": ("data: null\n", f"{HEADER}g1,99,0.01,0.01,90\n"),
    }
    for name, (settings, result) in folders.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "training.yaml").write_text(settings)
        (tmp_path / name / "result.csv").write_text(result)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(RUN)
    found = full_trainings(run)
    assert found.index.tolist() == ["g1"]
    assert found.loc["g1", ["epochs", "test_error"]].tolist() == [30, 0.2]
    (run / "config.yaml").write_text("space: {name: nasbench201, channels: 4}\n")
    assert full_trainings(run).empty  # a table's run has nothing to train
