"""Does a search with evonas pay? Compares it, in the same time, with what else a person would do.

On each data set, an arm has so many minutes on one core, two arms at a time:

- `evonas`: as `evonas search` does it: the space `stages`, at most 100,000 params, the strategy
  `auto`, seeds, recipe and length of the trainings as found for the images and the time;
- `nsga2` and `random`: the same space and trainings, from nothing, in populations of ten;
- `hand_made`: the named networks of the space in all sizes within the limit, trained in the same
  way. It takes the time that it takes; instead of searches it has trainings with other seeds;
- `optuna`: Optuna's NSGA-II over the same genes, with a plain training loop (`pays_optuna.py`).

What counts of a search is what it has measured when its time is over. Then at most eight networks
of its front on validation are trained again, all arms' alike: as `evonas train` does it, three
times, for the same number of steps. Within a seed, a network that two arms found is trained once.
`pays_answer.py` says how they are compared on the test images.

The first seed of all arms is first, then the second one. After each data set of a seed there are
`rows.csv` (a final training a line), `arms.csv` (a search a line), `answer.md` and the figure, of
what is complete so far. Call it again to continue after a kill: finished searches and trainings
stay, evonas's own go on where they were, and one of Optuna's begins anew.

    python benchmarks/pays.py --cifar10 cifar10.npz --pneumonia pneumoniamnist.npz [--seeds 5]
        [--data fashion_mnist cifar10 pneumonia] [--arms evonas random] [--minutes 12]
        [--processes 2] [--images 0] [--finals 8] [--final-seeds 3] [--final-steps 2000] [--out DIR]

Fashion-MNIST is a subset of 10,000 images. Images of CIFAR-10 are given as an .npz file or as a
folder with a folder for each class, those of PneumoniaMNIST as its .npz file with `images`,
`labels`, `test_images` and `test_labels`. To make such a file of mosaics, 32x32 pixels a tile:

    def tiles(name, columns):
        picture = np.asarray(Image.open(f"{name}.webp").convert("RGB"))
        rows = picture.shape[0] // 32
        tiled = picture.reshape(rows, 32, columns, 32, 3).swapaxes(1, 2)
        digits = Path(f"{name}.labels.txt").read_text().strip()
        return tiled.reshape(-1, 32, 32, 3), np.array([int(digit) for digit in digits])

    parts = [tiles("train_batch1", 100), tiles("train_batch2", 100)]
    test_images, test_labels = tiles("test_first1000", 40)
    images, labels = (np.concatenate(both) for both in zip(*parts))
    np.savez("cifar10.npz", images=images, labels=labels,
             test_images=test_images, test_labels=test_labels)
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import pandas as pd
import pays_answer
import pays_arms
from pays_arms import ARMS, Plan

from evonas.core import derive_seed
from evonas.plots.style import Drawing, save, styled

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
FASHION = 10_000  # images
SETTINGS = ("minutes", "images", "finals", "final_seeds", "final_steps")  # the same in all calls


def source(data: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return the data of an experiment."""
    if data == "fashion_mnist":
        return {"name": data, "subset": given.images or FASHION}
    path: Path = getattr(given, data).resolve()
    subset = {"subset": given.images} if given.images else {}
    mirrored = {"flippable": data == "cifar10"}  # the heart is on the left
    if path.is_dir():
        return {"name": "image_folder", "path": str(path), "size": 32, **mirrored, **subset}
    return {"name": "npz", "path": str(path), **mirrored, **subset}


class Part:
    """A seed of a data set: the searches of all arms, and the final trainings."""

    def __init__(self, data: str, plan: Plan, seed: int, given: argparse.Namespace) -> None:
        self.data, self.plan, self.seed, self.given = data, plan, seed, given
        self.folder = given.out / data

    def record(self, arm: str) -> Path:
        return self.folder / f"{arm}-{self.seed}.json"

    def finals(self, arm: str) -> Iterator[tuple[dict[str, Any], int, Path]]:
        """Yield each final training of an arm: the network, the number and the record."""
        found = json.loads(self.record(arm).read_text())["networks"]
        most = self.given.finals
        for network in pays_arms.chosen(found, most, pays_answer.REFERENCE[self.data]):
            for number in range(self.given.final_seeds):
                seed = self.seed * self.given.final_seeds + number
                name = f"{derive_seed(seed, network['genome']):016x}.json"
                yield network, seed, self.folder / "finals" / name

    def run(self, pool: ProcessPoolExecutor) -> None:
        """Do what is missing: the searches, and after each one its final trainings."""
        (self.folder / "finals").mkdir(parents=True, exist_ok=True)
        searches: dict[Future[None], str] = {}
        trainings: dict[Future[None], Path] = {}
        for arm in self.given.arms:
            if not self.record(arm).exists():
                folder = self.record(arm).with_suffix("")
                call = (self.plan, arm, self.seed, folder, self.record(arm))
                searches[pool.submit(pays_arms.search_by, *call)] = arm
        ready = [arm for arm in self.given.arms if arm not in searches.values()]
        while ready or searches or trainings:
            for arm in ready:
                for network, seed, record in self.finals(arm):
                    if not record.exists() and record not in trainings.values():
                        call = (self.plan, network["genome"], seed, self.given.final_steps)
                        where = (record.with_suffix(""), record)
                        trainings[pool.submit(pays_arms.train_finally, *call, *where)] = record
            ready = []
            if not (searches or trainings):
                break
            done, _ = wait([*searches, *trainings], return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                if future in searches:
                    ready.append(searches.pop(future))
                    print(f"{self.data}, seed {self.seed}: searched by {ready[-1]}", flush=True)
                else:
                    trainings.pop(future)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each final training of the arms whose trainings are all done."""
        for arm in ARMS:
            if not self.record(arm).exists():
                continue
            finals = list(self.finals(arm))
            if not all(record.exists() for _, _, record in finals):
                continue
            search = json.loads(self.record(arm).read_text())
            for network, seed, record in finals:
                yield {
                    **{"data": self.data, "arm": arm, "seed": self.seed},
                    "evaluations": len(search["networks"]),
                    "search_seconds": round(search["seconds"], 1),
                    "genome": network["genome"],
                    "search_val_error": network["val_error"],
                    "final_seed": seed,
                    **json.loads(record.read_text()),
                }


def write(parts: list[Part], out: Path) -> str:
    """Write the tables and the figure of what is complete; return the answer."""
    rows = pd.DataFrame([row for part in parts for row in part.rows()])
    if rows.empty:
        return ""
    arms = pays_answer.scores(rows)
    rows.to_csv(out / "rows.csv", index=False)
    arms.to_csv(out / "arms.csv", index=False)
    text = pays_answer.answer(arms)
    (out / "answer.md").write_text(text)
    with styled():
        save(Drawing(*pays_answer.figure(rows)), out, "pays")
    return text


def check_settings(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End if an earlier call with the same folder had other settings: results would be mixed."""
    path = given.out / "settings.json"
    settings = {key: getattr(given, key) for key in SETTINGS}
    if path.exists() and json.loads(path.read_text()) != settings:
        parser.error(f"{path} has other settings; give these again, or another --out")
    path.write_text(json.dumps(settings))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sets = list(pays_answer.REFERENCE)
    parser.add_argument("--data", nargs="+", default=sets, choices=sets)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--seeds", type=int, default=5, help="searches of each arm")
    parser.add_argument("--minutes", type=float, default=12, help="of each search")
    parser.add_argument("--processes", type=int, default=2, help="one thread each")
    parser.add_argument("--cifar10", type=Path, help="its images, an .npz file or a folder")
    parser.add_argument("--pneumonia", type=Path, help="its images, an .npz file")
    parser.add_argument("--images", type=int, default=0, help="a subset of so many of each")
    parser.add_argument("--finals", type=int, default=8, help="networks of each search, at most")
    parser.add_argument("--final-seeds", type=int, default=3, help="trainings of each of them")
    parser.add_argument("--final-steps", type=int, default=2000, help="of each training")
    parser.add_argument("--out", type=Path, default=Path("results/pays"), help="a folder")
    given = parser.parse_args()
    for data in given.data:
        if data != "fashion_mnist" and getattr(given, data) is None:
            parser.error(f"the images of {data} are missing; give --{data} PATH, or other --data")
    given.out.mkdir(parents=True, exist_ok=True)
    check_settings(given, parser)
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))  # of the processes, when they load torch
    context = multiprocessing.get_context("spawn")
    parts: list[Part] = []
    with ProcessPoolExecutor(given.processes, mp_context=context) as pool:
        calls = [
            (source(data, given), given.minutes, given.out / data / "plan.json")
            for data in given.data
        ]
        made = pool.map(pays_arms.plan, *zip(*calls, strict=True))
        plans = dict(zip(given.data, made, strict=True))
        try:
            for seed, data in itertools.product(range(given.seeds), given.data):
                parts.append(Part(data, plans[data], seed, given))
                parts[-1].run(pool)
                print(write(parts, given.out), flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # else all that waits would be done
            raise


if __name__ == "__main__":
    main()
