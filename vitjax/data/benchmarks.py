"""Test sets of ImageNet's classes with special rules, by their names in TFDS."""

import difflib
import importlib.util
import os
import pathlib
import re
from typing import NamedTuple

from vitjax.names import check_choice, unknown

_R = """
    n01443537 n01484850 n01494475 n01498041 n01514859 n01518878 n01531178 n01534433 n01614925
    n01616318 n01630670 n01632777 n01644373 n01677366 n01694178 n01748264 n01770393 n01774750
    n01784675 n01806143 n01820546 n01833805 n01843383 n01847000 n01855672 n01860187 n01882714
    n01910747 n01944390 n01983481 n01986214 n02007558 n02009912 n02051845 n02056570 n02066245
    n02071294 n02077923 n02085620 n02086240 n02088094 n02088238 n02088364 n02088466 n02091032
    n02091134 n02092339 n02094433 n02096585 n02097298 n02098286 n02099601 n02099712 n02102318
    n02106030 n02106166 n02106550 n02106662 n02108089 n02108915 n02109525 n02110185 n02110341
    n02110958 n02112018 n02112137 n02113023 n02113624 n02113799 n02114367 n02117135 n02119022
    n02123045 n02128385 n02128757 n02129165 n02129604 n02130308 n02134084 n02138441 n02165456
    n02190166 n02206856 n02219486 n02226429 n02233338 n02236044 n02268443 n02279972 n02317335
    n02325366 n02346627 n02356798 n02363005 n02364673 n02391049 n02395406 n02398521 n02410509
    n02423022 n02437616 n02445715 n02447366 n02480495 n02480855 n02481823 n02483362 n02486410
    n02510455 n02526121 n02607072 n02655020 n02672831 n02701002 n02749479 n02769748 n02793495
    n02797295 n02802426 n02808440 n02814860 n02823750 n02841315 n02843684 n02883205 n02906734
    n02909870 n02939185 n02948072 n02950826 n02951358 n02966193 n02980441 n02992529 n03124170
    n03272010 n03345487 n03372029 n03424325 n03452741 n03467068 n03481172 n03494278 n03495258
    n03498962 n03594945 n03602883 n03630383 n03649909 n03676483 n03710193 n03773504 n03775071
    n03888257 n03930630 n03947888 n04086273 n04118538 n04133789 n04141076 n04146614 n04147183
    n04192698 n04254680 n04266014 n04275548 n04310018 n04325704 n04347754 n04389033 n04409515
    n04465501 n04487394 n04522168 n04536866 n04552348 n04591713 n07614500 n07693725 n07695742
    n07697313 n07697537 n07714571 n07714990 n07718472 n07720875 n07734744 n07742313 n07745940
    n07749582 n07753275 n07753592 n07768694 n07873807 n07880968 n07920052 n09472597 n09835506
    n10565667 n12267677
"""
IMAGENET_R = tuple(_R.split())
"""The classes of ImageNet-R (arXiv:2006.16241), as github.com/hendrycks/imagenet-r lists them."""

_A = """
    n01498041 n01531178 n01534433 n01558993 n01580077 n01614925 n01616318 n01631663 n01641577
    n01669191 n01677366 n01687978 n01694178 n01698640 n01735189 n01770081 n01770393 n01774750
    n01784675 n01819313 n01820546 n01833805 n01843383 n01847000 n01855672 n01882714 n01910747
    n01914609 n01924916 n01944390 n01985128 n01986214 n02007558 n02009912 n02037110 n02051845
    n02077923 n02085620 n02099601 n02106550 n02106662 n02110958 n02119022 n02123394 n02127052
    n02129165 n02133161 n02137549 n02165456 n02174001 n02177972 n02190166 n02206856 n02219486
    n02226429 n02231487 n02233338 n02236044 n02259212 n02268443 n02279972 n02280649 n02281787
    n02317335 n02325366 n02346627 n02356798 n02361337 n02410509 n02445715 n02454379 n02486410
    n02492035 n02504458 n02655020 n02669723 n02672831 n02676566 n02690373 n02701002 n02730930
    n02777292 n02782093 n02787622 n02793495 n02797295 n02802426 n02814860 n02815834 n02837789
    n02879718 n02883205 n02895154 n02906734 n02948072 n02951358 n02980441 n02992211 n02999410
    n03014705 n03026506 n03124043 n03125729 n03187595 n03196217 n03223299 n03250847 n03255030
    n03291819 n03325584 n03355925 n03384352 n03388043 n03417042 n03443371 n03444034 n03445924
    n03452741 n03483316 n03584829 n03590841 n03594945 n03617480 n03666591 n03670208 n03717622
    n03720891 n03721384 n03724870 n03775071 n03788195 n03804744 n03837869 n03840681 n03854065
    n03888257 n03891332 n03935335 n03982430 n04019541 n04033901 n04039381 n04067472 n04086273
    n04099969 n04118538 n04131690 n04133789 n04141076 n04146614 n04147183 n04179913 n04208210
    n04235860 n04252077 n04252225 n04254120 n04270147 n04275548 n04310018 n04317175 n04344873
    n04347754 n04355338 n04366367 n04376876 n04389033 n04399382 n04442312 n04456115 n04482393
    n04507155 n04509417 n04532670 n04540053 n04554684 n04562935 n04591713 n04606251 n07583066
    n07695742 n07697313 n07697537 n07714990 n07718472 n07720875 n07734744 n07749582 n07753592
    n07760859 n07768694 n07831146 n09229709 n09246464 n09472597 n09835506 n11879895 n12057211
    n12144580 n12267677
"""
IMAGENET_A = tuple(_A.split())
"""Those of ImageNet-A (arXiv:1907.07174), as github.com/hendrycks/natural-adv-examples does."""

ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428, "shot_noise": 0.894468, "impulse_noise": 0.922640,
    "defocus_blur": 0.819880, "glass_blur": 0.826268, "motion_blur": 0.785948,
    "zoom_blur": 0.798360, "snow": 0.866816, "frost": 0.826572, "fog": 0.819324,
    "brightness": 0.564592, "contrast": 0.853204, "elastic_transform": 0.646056,
    "pixelate": 0.717840, "jpeg_compression": 0.606500,
}  # fmt: skip
"""Corruption of ImageNet-C → AlexNet's top-1 error, the mean over the severities 1 to 5, as
github.com/hendrycks/robustness gives it for mCE (arXiv:1903.12261, section 4.1)."""

EXTRA_CORRUPTIONS = ("gaussian_blur", "saturate", "spatter", "speckle_noise")
"""Those that mCE does not count."""
SEVERITIES = (1, 2, 3, 4, 5)
CORRUPTED = "imagenet2012_corrupted"


class Benchmark(NamedTuple):
    """Rules of a test set.

    Attributes:
      split: its only split.
      classes: WordNet ids of the classes over which a model is scored; empty for all.
      crop: as in `eval_batches`, replaces the crop of the model; None for that of the model.
      config: default config of TFDS.
    """

    split: str
    classes: tuple[str, ...] = ()
    crop: float | None = None
    config: str = ""


BENCHMARKS = {
    "imagenet2012": Benchmark("validation"),
    "imagenet2012_real": Benchmark("validation"),  # arXiv:2006.07159
    "imagenet_v2": Benchmark("test", config="matched-frequency"),  # arXiv:1902.10811
    "imagenet_r": Benchmark("test", IMAGENET_R),
    "imagenet_a": Benchmark("test", IMAGENET_A),
    CORRUPTED: Benchmark("validation", crop=1.0),  # its images are crops of 224 pixels already
}
"""Name in TFDS → rules."""


class Named(NamedTuple):
    """Test set that a URI names.

    Attributes:
      name: a key of BENCHMARKS.
      parts: URI of each part by its name: the corruptions and severities of ImageNet-C, or the set
        itself as the only part.
    """

    name: str
    parts: dict[str, str]

    @property
    def rules(self) -> Benchmark:
        return BENCHMARKS[self.name]


def find_benchmark(uri: str) -> Named | None:
    """Find the test set that a URI names: `imagenet_r`, `tfds://imagenet_r?data_dir=FOLDER`.

    `imagenet2012_corrupted` names all corruptions at all severities, `…/fog` one corruption at all
    severities, `…/fog_3` one corruption at one severity.

    Returns:
      The test set, or None for other data.

    Raises:
      ValueError: the name is a likely misspelling, or also that of a local folder, or there is no
        such corruption.
    """
    scheme, separator, rest = uri.partition("://")
    path, _, query = (rest if separator else uri).partition("?")
    parts = [part.partition(":")[0] for part in path.split("/")]
    at = next((i for i, part in enumerate(parts) if part in BENCHMARKS), None)
    if separator and scheme != "tfds":
        return None
    if not separator:
        if os.path.exists(path):
            if at == 0:
                raise ValueError(
                    f"{path!r} is a folder here, and the name of a test set: say folder://{path} "
                    f"or tfds://{path}."
                )
            return None
        if at != 0:
            if difflib.get_close_matches(parts[0], BENCHMARKS, cutoff=0.8):
                raise ValueError(unknown("test set", parts[0], BENCHMARKS))
            return None
    if at is None:
        return None
    name, config = parts[at], path.split("/")[at + 1 : at + 2]
    tail = f"?{query}" if query else ""
    if name != CORRUPTED or path.startswith(("/", "~", ".")):
        default = BENCHMARKS[name].config
        full = f"{path}/{default}" if default and not config and at == 0 else path
        return Named(name, {name: f"tfds://{full}{tail}"})
    return Named(name, _corruptions(path.split("/")[at], config[0] if config else "", tail))


def _corruptions(name: str, config: str, tail: str) -> dict[str, str]:
    """List the URIs of one corruption at one or all severities, or of all corruptions."""
    whole = config.partition(":")[0]
    single = re.fullmatch(r"(.+)_([1-5])", whole)
    if config:
        known = (*ALEXNET_ERRORS, *EXTRA_CORRUPTIONS)
        check_choice("corruption of ImageNet-C", single[1] if single else whole, known)
    if single:
        return {whole: f"tfds://{name}/{config}{tail}"}
    return {
        f"{corruption}_{severity}": f"tfds://{name}/{corruption}_{severity}{tail}"
        for corruption in ([whole] if whole else ALEXNET_ERRORS)
        for severity in SEVERITIES
    }


def imagenet_classes() -> tuple[str, ...] | None:
    """Read ImageNet's classes in the order of published weights, which is that of WordNet ids.

    They are read from the files of TFDS, without importing it; None if it is not installed.
    """
    found = importlib.util.find_spec("tensorflow_datasets")
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = pathlib.Path(folder, "datasets", "imagenet2012", "labels.txt")
        if path.is_file():
            return tuple(path.read_text().split())
    return None


def corruption_errors(errors: dict[str, float]) -> tuple[dict[str, float], float | None]:
    """Compute corruption errors from the top-1 errors of ImageNet-C's parts.

    CE = Σ_s E_s / Σ_s E_s of AlexNet, over the severities s, and mCE is its mean over the 15
    corruptions (Hendrycks and Dietterich, arXiv:1903.12261, section 4.1).

    Args:
      errors: top-1 error of each part, by names such as "fog_3".

    Returns:
      CE of each corruption with all severities, and mCE if all corruptions are complete.
    """
    found = {}
    for corruption, alexnet in ALEXNET_ERRORS.items():
        own = [errors.get(f"{corruption}_{severity}") for severity in SEVERITIES]
        if None not in own:
            found[corruption] = sum(e for e in own if e is not None) / (len(own) * alexnet)
    whole = len(found) == len(ALEXNET_ERRORS)
    return found, sum(found.values()) / len(found) if whole else None
