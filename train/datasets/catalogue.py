"""Public datasets: where they are, how they are verified, and which texts are for what."""

from __future__ import annotations

from dataclasses import dataclass

from train.datasets.download import Download

PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class Pair:
    """Two parallel texts, each a place as in `sentences_of`."""

    source: str
    target: str


@dataclass(frozen=True)
class Dataset:
    """A parallel corpus: its downloads, and the texts of its parts.

    terms: of its licence. text_bytes: of all texts, about. held_out: where nothing is for
    validation, each pair of the training texts with this number is (0: none). hub_id: what hubs of
    datasets call it, if they have it.
    """

    name: str
    about: str
    terms: str
    source: str
    target: str
    downloads: tuple[Download, ...]
    train: tuple[Pair, ...]
    valid: tuple[Pair, ...]
    test: tuple[Pair, ...]
    text_bytes: int
    held_out: int = 0
    hub_id: str | None = None

    def texts(self, part: str) -> tuple[str, str]:
        """The names of a part's files, source and target: of "train", "train.en", "train.de"."""
        return f"{part}.{self.source}", f"{part}.{self.target}"


def _wmt13(name: str, size: int, sha256: str) -> Download:
    return Download(f"https://www.statmt.org/wmt13/training-parallel-{name}.tgz", size, sha256)


# Sizes and checksums of WMT's files are those of TensorFlow Datasets (url_checksums).
_EUROPARL = _wmt13(
    "europarl-v7", 657_632_379, "0224c7c710c8a063dfd893b0cc0830202d61f4c75c17eb8e31836103d27d96e7"
)
_COMMON_CRAWL = _wmt13(
    "commoncrawl", 918_311_367, "c7a74e2ea01ac6c920123108627e35278d4ccb5701e15428ffa34de86fa3a9e5"
)
_UN = _wmt13(
    "un", 2_365_634_246, "29141b5c1eba149a94f7a59d3b1a834b2e47fe0f8758d68dcd77a3d3f497ee47"
)
_NEWS_COMMENTARY = Download(
    "https://www.statmt.org/wmt14/training-parallel-nc-v9.tgz",
    80_418_416,
    "cb8953f292298e6877ae433c98912b927cb0766b303f4540512ddd286c748485",
)
_GIGA_FREN = Download(
    "https://www.statmt.org/wmt10/training-giga-fren.tar",
    2_595_102_720,
    "3ff8319f6919393520559bfbc7ad6a747ec81b3abc7be9993b338d4b017b4d9a",
)
_DEV = Download(  # every newstest up to 2018
    "https://data.statmt.org/wmt19/translation-task/dev.tgz",
    38_654_961,
    "7a7deccf82ebb05ba508dba5eb21356492224e8f630ec4f992132b029b4b25e7",
)


def _wmt14(target: str, language: str, more: dict[Download, str], text_bytes: int) -> Dataset:
    """WMT 2014, from English; more: the texts of other downloads, without their endings."""
    pair = f"{target}-en"
    texts = {
        _EUROPARL: f"training/europarl-v7.{pair}.{{}}",
        _COMMON_CRAWL: f"commoncrawl.{pair}.{{}}",
        _NEWS_COMMENTARY: f"training/news-commentary-v9.{pair}.{{}}",
        **more,
    }
    places = [f"{download.name}/{text}" for download, text in texts.items()]
    newstest = f"{_DEV.name}/dev/newstest2014-{target}en"
    return Dataset(
        name=f"wmt14-en-{target}",
        about=f"WMT 2014, English to {language} (Bojar et al., 2014)",
        terms="free for research; each corpus has terms of its own, see "
        "https://www.statmt.org/wmt14/translation-task.html",
        source="en",
        target=target,
        downloads=(*texts, _DEV),
        train=tuple(Pair(place.format("en"), place.format(target)) for place in places),
        valid=(Pair(*(f"{_DEV.name}/dev/newstest2013.{side}" for side in ("en", target))),),
        test=(Pair(f"{newstest}-src.en.sgm", f"{newstest}-ref.{target}.sgm"),),
        text_bytes=text_bytes,
        hub_id="wmt/wmt14",
    )


WMT14_EN_DE = _wmt14("de", "German", {}, 1_360_000_000)
WMT14_EN_FR = _wmt14(
    "fr",
    "French",
    {_UN: "un/undoc.2000.fr-en.{}", _GIGA_FREN: "giga-fren.release2.fixed.{}.gz"},
    14_760_000_000,
)

_TED = "de-en.tgz/de-en/"
IWSLT14 = Dataset(
    name="iwslt14",
    about="IWSLT 2014, German to English: TED talks (Cettolo et al., 2014)",
    terms="the talks are under CC BY-NC-ND 4.0",
    source="de",
    target="en",
    # A copy of wit3.fbk.eu/archive/2014-01/texts/de/en/de-en.tgz, which is gone. Its size is that
    # of the original; no checksum is published.
    downloads=(
        Download("https://dl.fbaipublicfiles.com/fairseq/data/iwslt14/de-en.tgz", 19_982_877, None),
    ),
    train=(Pair(f"{_TED}train.tags.de-en.de", f"{_TED}train.tags.de-en.en"),),
    valid=(),
    test=tuple(
        Pair(f"{_TED}IWSLT14.{name}.de-en.de.xml", f"{_TED}IWSLT14.{name}.de-en.en.xml")
        for name in ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012")
    ),
    text_bytes=40_000_000,
    held_out=23,  # as fairseq's prepare-iwslt14.sh does, with the same test set
)


def _multi30k(name: str, size: int, sha256: str) -> Download:
    commit = "7bee46bc74186b4b6254603143610f730d40bf66"
    return Download(
        f"https://raw.githubusercontent.com/multi30k/dataset/{commit}/data/task1/tok/"
        f"{name.replace('.', '.lc.norm.tok.')}",
        size,
        sha256,
    )


MULTI30K = Dataset(
    name="multi30k",
    about="Multi30k, English to German, lower-cased and tokenised (Elliott et al., 2016)",
    terms="its authors state no licence for the text; use it for research",
    source="en",
    target="de",
    downloads=(
        _multi30k(
            "train.en",
            1_837_696,
            "08925f8e0572bcd5a006702fc5fe20e2d77c6917d4eebd576fc20de6693c2119",
        ),
        _multi30k(
            "train.de",
            2_150_008,
            "cb5a23529b65ec2061f1dc446192a9c37382b63cc75f81a0be59d34894b3a505",
        ),
        _multi30k(
            "val.en", 64_608, "46573ce391ae227f1c72f873392436a20ef18e0a6d518098cfbd70b77c8572ec"
        ),
        _multi30k(
            "val.de", 77_273, "97232bd273eceb7207f689527386a97e4be2616b18ada47576bdaf96c8ae1f00"
        ),
        _multi30k(
            "test_2016_flickr.en",
            63_307,
            "5b7f32627cf99eced828311b955dae9800bb52bc8b91cf8b6526829e605b29d2",
        ),
        _multi30k(
            "test_2016_flickr.de",
            71_917,
            "c6a33d39d48f9f510de147651316cd9d918e09ad0219df734a2f16b6baccacc4",
        ),
    ),
    train=(Pair("train.lc.norm.tok.en", "train.lc.norm.tok.de"),),
    valid=(Pair("val.lc.norm.tok.en", "val.lc.norm.tok.de"),),
    test=(Pair("test_2016_flickr.lc.norm.tok.en", "test_2016_flickr.lc.norm.tok.de"),),
    text_bytes=4_300_000,
)

DATASETS = {dataset.name: dataset for dataset in (MULTI30K, IWSLT14, WMT14_EN_DE, WMT14_EN_FR)}
"""By name."""
