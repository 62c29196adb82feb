"""The recipes in train/configs: all load, and the commands in their comments are valid."""

import re
import shlex
from pathlib import Path

import pytest

from train.cli.parser import build_parser
from train.cli.words import underscored
from train.datasets.catalogue import DATASETS
from train.settings import settings_from_dict
from train.settings_file import read_settings

RECIPES = sorted((Path(__file__).parents[2] / "train" / "configs").glob("*.yaml"))
OF_DATASETS = [path for path in RECIPES if path.stem != "base"]


def commands(recipe: Path) -> list[list[str]]:
    """The commands in a recipe's comment, without the name of the program."""
    text = re.sub(r" \\\n#\s*", " ", recipe.read_text())
    return [shlex.split(line) for line in re.findall(r"^#   npformer (.*)$", text, re.MULTILINE)]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads(recipe: Path) -> None:
    config = settings_from_dict(read_settings(recipe)).transformer_config(vocab_size=8000)
    assert config.d_model % config.heads == 0


@pytest.mark.parametrize("recipe", OF_DATASETS, ids=lambda path: path.stem)
def test_a_recipe_says_how_to_run_it(recipe: Path) -> None:
    said = commands(recipe)
    assert [words[0] for words in said] == ["fetch", "prepare", "train", "average", "evaluate"]
    parser = build_parser()
    options = {words[0]: parser.parse_args(underscored(words))[words[0]] for words in said}
    dataset = DATASETS[options["fetch"].name]
    texts = {Path("data", dataset.name, text) for text in dataset.texts("train")}
    assert {*options["prepare"].train_source, *options["prepare"].train_target} == texts
    assert Path(options["train"].config).name == recipe.name
    assert options["train"].data == options["prepare"].out
    assert options["average"].run == options["train"].out
    assert options["average"].last <= read_settings(recipe)["keep_checkpoints"]
    assert options["evaluate"].model == options["average"].out
    assert options["evaluate"].reference == Path("data", dataset.name, dataset.texts("test")[1])


def test_every_dataset_has_a_recipe() -> None:
    assert {commands(recipe)[0][1] for recipe in OF_DATASETS} == set(DATASETS)
