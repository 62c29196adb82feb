"""The subjects: all files that npformer reads, the commands that read them, and their results."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path

from npformer.checkpoint import load_arrays
from tests.damage import mutations
from tests.damage.mutations import Damage
from train.__main__ import main
from train.grammar import generate

_MODEL = [
    "--model.preset=tiny",
    "--model.layers=1",
    "--model.d_model=8",
    "--model.d_ff=8",
    "--model.heads=2",
]
_STEPS = ["--batch_tokens=150", "--max_steps=4"]
_SETTINGS = [*_MODEL, "--warmup=2", "--log_every=1", "--validate_every=3", "--checkpoint_every=1"]
_RAW: tuple[Damage, ...] = (
    mutations.flip_bits,
    mutations.spoil_block,
    mutations.cut,
    mutations.replace_file,
)


@dataclass(frozen=True)
class Subject:
    """Files that are read together.

    `files` are those that may be damaged, as patterns below the folder of a trial, each with the
    damage for its kind of file. `commands` are run on them. `results` are patterns of the files
    that hold the commands' results, besides standard output. If `is_free`, damage that is not
    refused may change the result, as a setting with another valid value does. If `waits`, the
    commands wait for a writer of a named pipe, so this damage is left out.
    """

    name: str
    files: dict[str, tuple[Damage, ...]]
    commands: tuple[tuple[str, ...], ...]
    results: tuple[str, ...] = ()
    free: tuple[Damage | str, ...] = ()
    waits: bool = False

    def is_free(self, file: str, damage: Damage) -> bool:
        """Whether another result is accepted, too."""
        return damage in self.free or any(
            Path(file).match(p) for p in self.free if isinstance(p, str)
        )

    def choose(self, folder: Path, rng: random.Random) -> tuple[str, Damage]:
        """A file below `folder`, and how to damage it."""
        pattern = rng.choice(sorted(self.files))
        file = rng.choice(sorted(p for p in folder.glob(pattern) if p.is_file()))
        return str(file.relative_to(folder)), rng.choice((*self._raw(), *self.files[pattern]))

    def _raw(self) -> tuple[Damage, ...]:
        """The damage for any kind of file."""
        return _RAW if self.waits else (*_RAW, mutations.put_pipe)


_ARRAYS = (mutations.wrong_header, mutations.wrong_metadata, mutations.wrong_arrays)

SUBJECTS = [
    Subject(
        "model",
        {
            "model/config.json": (mutations.wrong_json,),
            "model/model.safetensors": _ARRAYS,
            "model/tokenizer.spm": (),
        },
        (
            ("score", "--model=model", "--source=text.en", "--target=text.de"),
            ("evaluate", "--model=model", "--source=text.en", "--reference=text.de", "--beam=2"),
        ),
    ),
    Subject(
        "shortlist",
        {"model/shortlist.safetensors": _ARRAYS},
        (
            (
                *("evaluate", "--model=model", "--shortlist", "--beam=2"),
                *("--source=text.en", "--reference=text.de"),
            ),
        ),
    ),
    Subject(
        "model of two vocabularies",
        {
            "two/config.json": (mutations.wrong_json,),
            "two/model.safetensors": _ARRAYS,
            "two/source.spm": (),
            "two/target.spm": (),
        },
        (
            ("score", "--model=two", "--source=text.en", "--target=text.de"),
            ("plot", "two", "--attention=The cat sleeps.", "--out=attention.png"),
        ),
    ),
    Subject(
        "corpus",
        {
            "corpus/manifest.json": (mutations.wrong_json, mutations.wrong_manifest),
            "corpus/*.npy": (),
            "corpus/*.txt": (),
            "corpus/tokenizer.spm": (),
        },
        (("train", "--data=corpus", "--out=new", "--bleu_every=4", *_SETTINGS, *_STEPS),),
        results=("new/model.safetensors",),
    ),
    Subject(
        "run",
        {
            "run/training/state.safetensors": _ARRAYS,
            "run/model.safetensors": _ARRAYS,
            "run/checkpoints/*.safetensors": _ARRAYS,
            "run/config.json": (mutations.wrong_json,),
            "run/tokenizer.spm": (),
            "run/metrics.jsonl": (mutations.wrong_json_line,),
            "run/train.yaml": (mutations.wrong_yaml,),
        },
        (("train", "--resume", "--data=corpus", "--out=run", *_STEPS),),
        results=("run/model.safetensors",),
        # The metadata of a state hold the position of the run, which may be another valid one.
        free=(mutations.wrong_metadata, "metrics.jsonl", "train.yaml"),
    ),
    Subject(
        "checkpoints",
        {
            "run/checkpoints/*.safetensors": _ARRAYS,
            "run/config.json": (mutations.wrong_json,),
            "run/tokenizer.spm": (),
        },
        (("average", "run", "--last=2", "--out=mean"), ("translate", "--model=mean")),
        results=("mean/model.safetensors", "mean/tokenizer.spm", "mean/config.json"),
        # With a checkpoint less, the others are averaged.
        free=(mutations.replace_file, mutations.put_pipe),
    ),
    Subject(
        "metrics",
        {"run/metrics.jsonl": (mutations.wrong_json_line,)},
        (("plot", "run", "--out=curves.png"),),
        free=("metrics.jsonl",),
    ),
    Subject(
        "demonstration",
        {"demo/npformer-demo": (mutations.wrong_json,)},
        (("demo", "--out=demo"),),
        results=("demo/*.txt", "demo/model/*", "demo/text/*"),
    ),
    Subject(
        "settings",
        {"settings.yaml": (mutations.wrong_yaml,)},
        # Flags override the file, so that no valid setting makes training take minutes.
        (("train", "--config=settings.yaml", "--data=corpus", "--out=new", *_MODEL, *_STEPS),),
        results=("new/model.safetensors",),
        free=("settings.yaml",),
    ),
    Subject(
        "text",
        {"text.*": ()},
        (
            ("evaluate", "--model=model", "--source=text.en", "--reference=text.de", "--beam=1"),
            (
                "prepare",
                "--train_source=text.en",
                "--train_target=text.de",
                "--valid_source=text.en",
                "--valid_target=text.de",
                "--vocab_size=340",
                "--out=again",
            ),
        ),
        free=("text.*",),
        waits=True,
    ),
]


def prepare_files(folder: Path) -> None:
    """Write intact files: a corpus, a run that can be resumed, models, settings, and text."""
    pairs = generate(pairs=300, held_out=30, seed=0)
    text = []
    for name, chosen in (
        ("train", pairs.train[:120]),
        ("valid", pairs.valid),
        ("text", pairs.test[:8]),
    ):
        for side, language in (("source", "en"), ("target", "de")):
            path = folder / f"{name}.{language}"
            path.write_text("".join(f"{getattr(pair, side)}\n" for pair in chosen), "utf-8")
            if name != "text":
                text.append(f"--{name}_{side}={path}")
    corpus, run = f"{folder}/corpus", folder / "run"
    done("prepare", *text, "--vocab_size=400", f"--out={corpus}")
    done("train", f"--data={corpus}", f"--out={run}", *_SETTINGS, *_STEPS, "--max_steps=3")
    done("average", str(run), "--last=2", f"--out={folder}/model")
    done("shortlist", f"--model={folder}/model", f"--data={corpus}")
    done("prepare", *text, "--vocab_size=400", "--separate", f"--out={folder}/separate")
    done("train", f"--data={folder}/separate", f"--out={folder}/two", *_SETTINGS, *_STEPS)
    (folder / "settings.yaml").write_bytes((run / "train.yaml").read_bytes())
    done("demo", f"--out={folder}/demo")
    for mine in (folder / "demo" / "notes.txt", folder / "demo" / "text" / "notes.txt"):
        mine.write_text("mine")


def done(*words: str) -> None:
    """Run a command that must succeed."""
    assert main(words) == 0, words


def results(subject: Subject, folder: Path) -> dict[str, str]:
    """Checksums of a subject's results: of the values of arrays, of the bytes of other files."""
    found = {}
    for pattern in subject.results:
        for path in sorted(folder.glob(pattern)):
            found[str(path.relative_to(folder))] = _digest(path)
    return found


def _digest(path: Path) -> str:
    if path.suffix != ".safetensors":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    arrays, metadata = load_arrays(path)
    digest = hashlib.sha256(json.dumps(metadata.get("step")).encode())
    for name in sorted(arrays):
        digest.update(name.encode() + arrays[name].tobytes())
    return digest.hexdigest()
