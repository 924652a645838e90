"""Whatever people write by hand is right or one sentence that names file, section and remedy: never a traceback."""

from pathlib import Path

import pytest

HEAD = "include: [small]\non: [default]\n"
SORN = "runs: {mine: {like: small-sorn%s}}\n"
CACHE = "caches: {mine: {dataset: synth-occluded%s}}\n"
PARSER = ("parsers: {mine: {architecture: lraspp, labels: densepose24, uv: true, init: none, height: 128, width: 64, "
          "image_steps: 8, batch: 8, lr: 0.01, augment: flip, seed: 0, workers: 1%s}}\n")
SETS = "datasets: {mine: {layout: market, raw: data/raw/mine}}\n"
SYNTH = "include: [synthetic]\non: [default]\n"
REAL = HEAD + "datasets: {mine: {layout: folder, raw: profiles}}\n"
FIGURE = "figures: {mine: {kind: lists, title: a, shows: [%s], names: [a, b], count: %s, dataset: %s}}\n"

WRITTEN = [
    # the file itself
    ("empty", "", "nothing", "sections belong"),
    ("comments alone", "# to do\n", "nothing", "sections belong"),
    ("a list", "- a\n- b\n", "a list", "sections belong"),
    ("a word", "sorn\n", "'sorn'", "sections belong"),
    ("broken", "runs: {a: [1, 2}\n", "line 1", "YAML"),
    ("an open quote", "device: \"cpu\nthreads: 2\n", "YAML"),
    ("tabs", "runs:\n\tsorn: {}\n", "line 2", "tab"),
    ("conflict marks", "<<<<<<< HEAD\ndevice: cpu\n=======\ndevice: auto\n>>>>>>> theirs\n", "line 1", "conflict"),
    ("a middle mark", "device: cpu\n=======\n", "line 2", "conflict"),
    ("a tag", "device: !!python/object:os.system x\n", "line 1", "could not determine a constructor"),
    ("a mean tag", "threads: !!int ''\n", "YAML"),
    ("bytes", "device: !!binary aGFsbG8=\n" + HEAD, "device: ", "expected a string"),
    ("a key twice", "threads: 1\nthreads: 2\n", "line 2", "'threads' stands there twice"),
    ("an entry twice", HEAD + "runs:\n  a: {like: small-sorn}\n  a: {like: small-dsa}\n", "line 5", "'a' stands there"),
    ("deep brackets", "runs: " + "[" * 200_000, "nested too deeply"),
    ("deep dashes", "runs: " + "- " * 200_000, "nested too deeply"),
    ("deep entries", "".join(f"{' ' * level}a:\n" for level in range(80)), "nested too deeply"),
    ("an alias of itself", HEAD + "runs: &a {mine: *a}\n", "alias"),
    ("a list as a key", HEAD + "? [a]\n: b\n", "line 3", "YAML"),
    # sections
    ("an unknown section", HEAD + "rusn: {}\n", "'rusn'", "did you mean 'runs'?"),
    ("a number for a section", "3: {}\n", "unknown section 3"),
    ("a section that is text", HEAD + "runs: sorn\n", "runs: expected entries, got 'sorn'"),
    ("a section that is nothing", HEAD + "runs:\n", "runs: expected entries, got None", "left out"),
    ("a section that is a list", HEAD + "runs: [sorn]\n", "runs: expected entries, got ['sorn'] (a list)"),
    ("an entry that is text", HEAD + "runs: {mine: sorn}\n", "runs.mine: expected entries, got 'sorn'"),
    ("an entry that is a list", HEAD + "recipes: {mine: [a]}\n", "recipes.mine: expected entries"),
    ("include that is text", "include: small\n", "include: expected a list of names: write [name], got 'small'"),
    ("on that is text", "include: [small]\non: default\n", "on: expected a list of names"),
    ("include of a number", "include: [3]\n", "include: expected a list of names"),
    ("device missing", "on: [default]\n", "device: is missing", "include: [small]"),
    ("device unknown", HEAD + "device: gpu\n", "device: is 'gpu'", "auto, cpu, cuda"),
    ("threads in words", HEAD + "threads: two\n", "threads: expected a whole number, got 'two'"),
    ("threads that are nothing", HEAD + "threads: null\n", "threads: is missing"),
    # names that a thing may not have
    ("a name with a blank", HEAD + "runs: {my sorn: {like: small-sorn}}\n", "runs: 'my sorn' cannot be a name"),
    ("a name with a dot", HEAD + "runs: {sorn.2: {like: small-sorn}}\n", "'sorn.2' cannot be a name"),
    ("a number for a name", HEAD + "runs: {2: {like: small-sorn}}\n", "runs: 2 cannot be a name"),
    ("a name of digits", HEAD + "runs: {'2': {like: small-sorn}}\n", "'2' cannot be a name"),
    ("true for a name", HEAD + "runs: {true: {like: small-sorn}}\n", "True cannot be a name"),
    ("nothing for a name", HEAD + "runs: {~: {like: small-sorn}}\n", "None cannot be a name"),
    ("a long name", HEAD + f"runs: {{{'a' * 65}: {{like: small-sorn}}}}\n", "cannot be a name", "at most 64"),
    ("an umlaut", HEAD + "datasets: {straße: {layout: folder, raw: x}}\n", "cannot be a name"),
    ("a path to include", "include: [../profiles/small]\n", "include: '../profiles/small' is no profile"),
    ("a name that is another's", HEAD + "runs: {sorn: {like: small-sorn}}\n", "runs.sorn", "already"),
    ("a data set that is another's", HEAD + "datasets: {synth-partial: {layout: market, raw: x}}\n",
     "datasets.synth-partial", "already"),
    # names of what is not there
    ("an unknown include", "include: [smal]\n", "include: 'smal' is no profile", "did you mean 'small'"),
    ("an unknown on", "include: [small]\non: [defualt]\n", "on: 'defualt' is no profile", "did you mean 'default'"),
    ("an unknown recipe", HEAD + "runs: {mine: {like: small-sron}}\n", "runs.mine.like: 'small-sron' is no recipe",
     "did you mean 'small-sorn'"),
    ("an unknown recipe of a recipe", HEAD + "recipes: {mine: {like: small-sron}}\n", "recipes.mine.like"),
    ("an unknown of", HEAD + "runs: {mine: {of: dsaa}}\n", "runs.mine.of: 'dsaa' is no run", "did you mean 'dsa'"),
    ("an unknown train_on", HEAD + SORN % ", train_on: synth-ocluded", "runs.mine.train_on: 'synth-ocluded'",
     "did you mean 'synth-occluded'"),
    ("an unknown eval_on", HEAD + SORN % ", eval_on: [synth-ocluded]", "runs.mine.eval_on: 'synth-ocluded'",
     "did you mean 'synth-occluded'"),
    ("an unknown cache", HEAD + SORN % ", cache: synth-ocluded", "runs.mine.cache: 'synth-ocluded' is no cache",
     "did you mean 'synth-occluded'"),
    ("an unknown model", HEAD + SORN % ", model: {name: sron}", "runs.mine.model.name: unknown model 'sron'",
     "did you mean 'sorn'"),
    ("an unknown dataset", HEAD + "caches: {mine: {like: parse, dataset: synth-ocluded}}\n",
     "caches.mine.dataset: 'synth-ocluded' is no data set", "did you mean 'synth-occluded'"),
    ("an unknown parser", HEAD + CACHE % ", parser: lrasp", "caches.mine.parser: unknown parser 'lrasp'",
     "did you mean 'lraspp'"),
    ("unknown weights", HEAD + CACHE % ", parser: lraspp, weights: lrasp", "caches.mine.weights: 'lrasp' is no parser",
     "did you mean 'lraspp'"),
    ("unknown parts", HEAD + "warps: {mine: {like: warp, dataset: synth-occluded, parts: x}}\n",
     "warps.mine.parts: 'x' is no cache"),
    ("unknown data of a parser", HEAD + PARSER % ", data: parsin", "parsers.mine.data: 'parsin' is no rendered set"),
    ("an unknown visible_by", HEAD + "runs: {mine: {of: sorn, visible_by: joint}}\n",
     "runs.mine.visible_by: 'joint' is no run"),
    ("unknown shows", HEAD + FIGURE % ("sron, dsa", 1, "synth-occluded"), "figures.mine.shows: 'sron' is no result",
     "did you mean 'sorn'"),
    ("an unknown data set of a figure", HEAD + FIGURE % ("sorn, dsa", 1, "synth-x"), "figures.mine.dataset: 'synth-x'"),
    ("an unknown kind of figure", HEAD + FIGURE.replace("lists", "list") % ("a, b", 1, "c"),
     "figures.mine.kind: 'list' is no kind of figure", "did you mean 'lists'"),
    ("an unknown beside", HEAD + "beside: [sron]\n", "beside: 'sron' is no result", "did you mean 'sorn'"),
    ("an unknown parser of a report", HEAD + "report: {mine: {title: a, pictures: synth-occluded, parser: x}}\n",
     "report.mine.parser: 'x' is no parser"),
    ("unknown pictures of a report", HEAD + "report: {mine: {title: a, pictures: x, parser: lraspp}}\n",
     "report.mine.pictures: 'x'"),
    ("an unknown key of a run", HEAD + SORN % ", image_step: 5", "runs.mine.image_step: unknown key",
     "did you mean 'image_steps'"),
    ("an unknown key of a data set", HEAD + "datasets: {mine: {layout: market, rwa: x}}\n", "datasets.mine.rwa",
     "did you mean 'raw'"),
    ("an unknown key of a model", HEAD + SORN % ", model: {lambda_sp: 1}", "runs.mine.model.lambda_sp",
     "did you mean 'lambda_spc'"),
    ("an unknown entry taken out", "include: [default]\nruns: {sron: null}\n", "runs.sron: null takes out",
     "did you mean 'sorn'"),
    # what is missing
    ("raw missing", HEAD + "datasets: {mine: {layout: market}}\n", "datasets.mine.raw: is missing"),
    ("layout missing", HEAD + "datasets: {mine: {raw: data/raw/mine}}\n", "datasets.mine.layout: is missing"),
    ("dataset missing", HEAD + "caches: {mine: {like: parse}}\n", "caches.mine.dataset: is missing"),
    ("dataset of occlude missing", HEAD + "occlude: {mine: {stream: a, seed: 0, low: 0.1, high: 0.2}}\n",
     "occlude.mine.dataset: is missing"),
    ("parser missing", HEAD + CACHE % "", "caches.mine.parser: is missing"),
    ("weights missing", HEAD + CACHE % ", parser: lraspp", "caches.mine.weights: is missing"),
    ("source missing", HEAD + CACHE % ", parser: precomputed", "caches.mine.source: is missing"),
    ("config missing", HEAD + CACHE % ", parser: densepose, source: x.pkl", "caches.mine.config: is missing"),
    ("data of a parser missing", HEAD + PARSER % "", "parsers.mine.data: is missing"),
    ("raw of photographs missing", HEAD + PARSER % ", layout: lip", "parsers.mine.raw: is missing"),
    ("train_on missing", "include: [small]\nruns: {mine: {like: sorn, eval_on: []}}\n", "runs.mine.train_on: is miss"),
    ("eval_on missing", HEAD + "runs: {mine: {like: sorn, train_on: synth-occluded}}\n", "runs.mine.eval_on: is miss"),
    ("match missing", HEAD + SORN % ", match: null", "runs.mine.match: is missing"),
    ("tau missing", HEAD + SORN % ", match: {tau: null}", "results.mine.match.tau: is missing"),
    ("model missing", HEAD + SORN % ", model: null", "runs.mine.model: is missing"),
    ("seed missing", HEAD + SORN % ", seed: null", "runs.mine.seed: is missing"),
    ("an empty run", HEAD + "runs: {mine: {}}\n", "runs.mine.train_on: is missing"),
    ("height missing", HEAD + "warps: {mine: {dataset: synth-occluded}}\n", "warps.mine.height: is missing"),
    ("names of a figure missing", HEAD + "figures: {mine: {kind: lists}}\n", "figures.mine.shows: is missing"),
    ("title missing", HEAD + "report: {mine: {pictures: synth-occluded, parser: lraspp}}\n", "report.mine.title"),
    ("a rendered set without a size", HEAD + "render: {mine: {kind: occluded}}\n", "render.mine.stream: is"),
    # other kinds of things than belong there
    ("eval_on that is a name", HEAD + SORN % ", eval_on: synth-occluded", "runs.mine.eval_on: expected a list"),
    ("eval_on of numbers", HEAD + SORN % ", eval_on: [3]", "runs.mine.eval_on: expected a list of names"),
    ("train_on that is a list", HEAD + SORN % ", train_on: [synth-occluded]", "runs.mine.train_on: expected a string"),
    ("dataset that is a list", HEAD + "caches: {mine: {like: parse, dataset: [a]}}\n", "caches.mine.dataset: expected"),
    ("like that is a list", HEAD + "runs: {mine: {like: [small-sorn]}}\n", "runs.mine.like: ['small-sorn'] is no rec"),
    ("of that is a list", HEAD + "runs: {mine: {of: [sorn]}}\n", "runs.mine.of: expected a string"),
    ("model that is a name", HEAD + SORN % ", model: dsa", "runs.mine.model: expected entries, got 'dsa'"),
    ("a model's name that is a list", HEAD + SORN % ", model: {name: [a]}", "runs.mine.model.name"),
    ("optimizer that is a name", HEAD + SORN % ", optimizer: adam", "runs.mine.optimizer: expected entries"),
    ("match that is a name", HEAD + SORN % ", match: all", "runs.mine.match: expected entries"),
    ("milestones that are a number", HEAD + SORN % ", optimizer: {milestones: 0.5}", "milestones: expected"),
    ("a parser that is a list", HEAD + CACHE % ", parser: [lraspp]", "caches.mine.parser: unknown parser"),
    ("raw that is a list", HEAD + "datasets: {mine: {layout: market, raw: [a]}}\n", "datasets.mine.raw: expected"),
    ("raw that is empty", HEAD + "datasets: {mine: {layout: market, raw: ''}}\n", "datasets.mine.raw: expected"),
    ("a date", HEAD + SORN % ", features_dtype: 2024-01-01", "runs.mine.features_dtype: expected a string"),
    ("joints in words", HEAD + "datasets: {mine: {layout: market, raw: x, joints: some}}\n", "joints: expected true"),
    ("trials in words", HEAD + "datasets: {mine: {layout: cuhk01, raw: x, trials: ten}}\n", "trials: expected a w"),
    ("no trials", HEAD + "datasets: {mine: {layout: cuhk01, raw: x, trials: 0}}\n", "datasets.mine.trials: is 0"),
    ("shows that is a name", HEAD + FIGURE.replace("[%s]", "%s") % ("sorn", 1, "synth-occluded"), "shows: expected a"),
    ("a figure of one", HEAD + FIGURE % ("sorn", 1, "synth-occluded"), "figures.mine: shows 1 under 2 names"),
    ("a figure of no queries", HEAD + FIGURE % ("sorn, dsa", 0, "synth-occluded"), "at least one query"),
    ("a figure of another set", HEAD + FIGURE % ("sorn-2, dsa", 1, "synth-partial")
     + "runs: {sorn-2: {of: sorn, eval_on: []}}\n", "figures.mine.dataset: sorn-2 is not scored on 'synth-partial'"),
    ("an unknown run to start from", HEAD + SORN % ", init: 'run:srn'", "runs.mine.init: 'srn' is no run of this prof",
     "did you mean 'sorn'"),
    ("no run to start from", HEAD + SORN % ", init: 'run:'", "runs.mine.init: '' is no run of this profile"),
    # circles, and what does not go together
    ("a start from itself", HEAD + SORN % ", init: 'run:mine'", "runs.mine: it takes its weights from itself (m"),
    ("starts in a circle", HEAD + "runs:\n  a: {like: small-sorn, init: run:b}\n  b: {like: small-sorn, init: run:c}\n"
     "  c: {like: small-sorn, init: run:a}\n", "runs.a: it takes its weights from itself (a -> b -> c -> a)"),
    ("a start from another model", HEAD + SORN % ", init: 'run:dsa'",
     "runs.mine.init: the model of 'dsa' is 'dsa', and this run's is 'sorn'"),
    ("a start from another backbone", HEAD + SORN % ", init: 'run:sorn', backbone: resnet50",
     "runs.mine.init: the backbone of 'sorn' is 'resnet18', and this run's is 'resnet50'"),
    ("a start from another's result", HEAD + "runs: {other: {of: sorn}, mine: {like: small-sorn, init: run:other}}\n",
     "runs.mine.init: 'other' is no run"),
    ("include of itself", "include: [mine]\n", "mine -> mine"),
    ("on itself", "include: [small]\non: [mine]\n", "mine -> mine"),
    ("a recipe like itself", HEAD + "recipes: {a: {like: b}, b: {like: a}}\nruns: {mine: {like: a}}\n", "like itself"),
    ("of a run with another training", HEAD + "runs: {mine: {of: dsa, image_steps: 5}}\n", "runs.mine.image_steps"),
    ("of a run on another set", HEAD + "runs: {mine: {of: dsa, train_on: synth-holistic}}\n", "runs.mine.train_on"),
    ("a cache of another set", HEAD + SORN % ", cache: synth-partial", "runs.mine.cache: 'synth-partial' was made of"),
    ("a warp of another set", HEAD + "warps: {mine: {like: warp, dataset: synth-partial, parts: synth-occluded}}\n",
     "warps.mine.parts: 'synth-occluded' was made of"),
    ("no cache to evaluate with", REAL + "runs: {mine: {like: small-sgam, eval_on: [mine]}}\n",
     "runs.mine.eval_on: 'mine' is no cache"),
    ("the oracle of a real set", REAL
     + "caches: {mine: {like: parse, dataset: mine, parser: oracle}}\n", "caches.mine.parser: is 'oracle'"),
    ("a configuration of no DensePose", HEAD + CACHE % ", parser: precomputed, source: x, config: y", "mine.config"),
    # the papers' rows
    ("papers that are a name", SYNTH + "rows: {papers: sorn}\n", "rows.papers: expected a l"),
    ("an unknown paper", SYNTH + "rows: {papers: [srn]}\n", "rows.papers: 'srn'",
     "did you mean 'sorn'"),
    ("an unknown sweep", SYNTH + "rows: {sweeps: [dsa]}\n", "rows.sweeps: 'dsa'"),
    ("an unknown key of rows", SYNTH + "rows: {paper: [sorn]}\n", "rows.paper: unknown",
     "did you mean 'papers'"),
    ("counterparts missing", HEAD + "rows: {papers: [sorn]}\n", "is no data set of this profile"),
    ("an unknown main", SYNTH + "rows: {papers: [sorn], main: synth}\n", "rows: 'synth'"),
    ("unknown counterparts", SYNTH + "rows: {counterparts: {market: synth-holistic}}\n",
     "rows.counterparts: 'market'"),
    ("an unknown counterpart", SYNTH + "rows: {papers: [sorn], counterparts: {market1501: synth}}\n",
     "'synth' is no"),
    ("seeds that are names", SYNTH + "rows: {papers: [sorn], seeds: {sorn: [sorn-seed1]}}\n", "rows.seeds.sorn"),
    ("seeds of no row", SYNTH + "rows: {papers: [sorn], seeds: {dsa: [1]}}\n", "rows.seeds: 'dsa' is no row's run"),
    ("a seed of another training", SYNTH + "runs: {sorn-seed1: {like: small-sorn, seed: 1, model: {lambda_spc: 0.0}}}\n"
     "rows: {papers: [sorn], seeds: {sorn: [1]}}\n",
     "rows.seeds.sorn: 'sorn-seed1' has model.lambda_spc 0.0", "and 'sorn'", "in `seed` alone"),
    ("a seed on another set", SYNTH + "runs: {sorn-seed1: {like: small-sorn, seed: 1, train_on: synth-holistic}}\n"
     "rows: {papers: [sorn], seeds: {sorn: [1]}}\n", "rows.seeds.sorn: 'sorn-seed1' has train_on 'synth-holistic'"),
    ("the seed that it has", SYNTH + "rows: {papers: [sorn], seeds: {sorn: [0]}}\n",
     "rows.seeds.sorn: it and sorn-seed0 have the seeds 0, 0"),
    ("an unknown only", SYNTH + "rows: {papers: [sorn], only: [sron]}\n", "rows.only: 'sron'"),
    ("no epochs", "include: [paper-recipes]\non: [paper]\nrows: {papers: [sorn], epochs: {sorn: null}}\n",
     "rows.epochs: has no entry 'sorn'"),
]


def one_sentence(ended, *said: str) -> str:
    assert ended.status == 2 and ended.out == "", ended
    assert ended.error.startswith("error: ") and ended.error.count("\n") == 1 and len(ended.error) < 1500, ended.error
    for part in said:
        assert part in ended.error, ended.error
    return ended.error


@pytest.mark.parametrize(("text", "said"), [pytest.param(text, said, id=name) for name, text, *said in WRITTEN])
def test_a_profile_written_by_hand(command, text, said):
    Path("profiles/mine.yaml").write_text(text, encoding="utf-8")
    one_sentence(command("mine"), "profiles/mine.yaml", *said)
    assert not Path("experiments").exists()


MARKS = "<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> theirs\n"


def marked(path: str) -> None:
    """Conflict marks in the middle of a file, as git leaves them."""
    lines = Path(path).read_text().splitlines(keepends=True) if Path(path).exists() else []
    Path(path).write_text("".join([*lines[:3], MARKS, *lines[3:]]))


def folder(path: str) -> None:
    Path(path).unlink()
    Path(path).mkdir()


def text(content: str | bytes):
    return lambda path: Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())


def start(content: str):
    """Something else in the place of the first line."""
    return lambda path: Path(path).write_text(content + Path(path).read_text().partition("\n")[2])


DAMAGED = [
    (file, name, damage, said)
    for file in ("params.yaml", "plan.yaml", "experiments/mine/params.yaml", "experiments/mine/plan.yaml")
    for name, damage, said in [
        ("marks", marked, "line 4 is a mark of a conflict"), ("empty", text(""), ""),
        ("broken", text("a: [1\n"), "YAML"), ("no text", text(b"\xff\xfe\x00"), "is no UTF-8 text"),
        ("a folder", folder, "cannot be read"), ("other keys", text("a: 1\nb: {c: [1, 2]}\n"), ""),
        ("a list", text("[a]\n"), ""), ("a date", text("2024-01-01"), ""),
        ("a mixture", text("plan: {1: a, b: [2024-01-01]}\n1: a\nb: c\n"), ""), ("tabs", text("a:\n\tb: 1\n"), "tab"),
        ("tags", text("a: !!python/name:os.system\n"), "constructor"), ("no first line", start(""), ""),
        ("another first line", start("# mine\n"), ""), ("a cut first line", start("# composed from\n"), "")]]


@pytest.fixture
def composed(command):
    """The default and, on it, an experiment with one run."""
    Path("profiles/mine.yaml").write_text(HEAD + "runs: {mine: {like: small-sorn, seed: 5}}\n")
    assert command("mine").status == 0
    assert command("--check").status == 0
    return command


@pytest.mark.parametrize(("file", "damage", "said"), [
    pytest.param(file, damage, said, id=f"{file}: {name}") for file, name, damage, said in DAMAGED])
def test_a_damaged_file_of_an_experiment_is_named_by_check_compose_and_stages(composed, file, damage, said):
    damage(file)
    one_sentence(composed("--check"), f"'{file}'", said)
    again = composed("mine" if "mine" in file else "default")
    assert again.status == 0 or one_sentence(again, f"'{file}'", said)
    if Path(file).is_dir():
        one_sentence(composed("mine" if "mine" in file else "default", "--force"), f"'{file}'", "cannot be written")
        return
    if file != "plan.yaml":  # whose experiment is another's base: composing that needs none of it
        assert composed("mine" if "mine" in file else "default", "--force").status == 0
        assert composed("--check").status == 0


@pytest.mark.parametrize("file", ["dvc.lock", "experiments/mine/dvc.lock"])
@pytest.mark.parametrize("damage", [marked, text("a: [1\n"), text(b"\xff")])
def test_a_damaged_lock_is_named_by_check(composed, file, damage):
    Path(file).write_text("schema: '2.0'\nstages:\n  render@parsing:\n    cmd: python -m stages.render\n")
    assert composed("--check").status == 0
    damage(file)
    one_sentence(composed("--check"), f"'{file}'")


@pytest.mark.parametrize("file", ["params.yaml", "experiments/mine/params.yaml", "experiments/mine/plan.yaml"])
def test_files_that_are_absent_are_composed_again(composed, file):
    before = Path(file).read_bytes()
    Path(file).unlink()
    if file != "experiments/mine/params.yaml":  # without which there is no such experiment
        one_sentence(composed("--check"), f"'{file}'", "is not there", "python -m stages.compose")
    assert composed("mine").status == 0
    assert Path(file).read_bytes() == before and composed("--check").status == 0


def test_files_that_may_not_be_read_or_written(composed, monkeypatch):
    real = Path.read_text

    def closed(path, *arguments, **named):
        if path.name == "plan.yaml" and "mine" in str(path):
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", closed)
        for arguments in (["--check"], ["mine"], ["default"]):
            one_sentence(composed(*arguments), "'experiments/mine/plan.yaml'", "Permission denied")

    def fails(*_, **__):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fails)
        one_sentence(composed("mine"), "'experiments/mine/params.yaml'", "cannot be written", "Permission denied")
    assert composed("--check").status == 0


def test_other_things_in_the_way(composed):
    stages = Path("experiments/mine/dvc.yaml")
    stages.unlink()
    stages.write_text("stages: {}\n")
    one_sentence(composed("--check"), "'experiments/mine/dvc.yaml'", "is no copy of 'dvc.yaml'")
    assert composed("mine").status == 0 and stages.read_bytes() == Path("dvc.yaml").read_bytes()
    stages.unlink()
    stages.mkdir()
    one_sentence(composed("mine"), "'experiments/mine/dvc.yaml'", "cannot be written")
    Path("profiles/other.yaml").write_text(HEAD + "runs: {other: {like: small-sorn}}\n")
    Path("experiments/other").write_text("a file\n")
    one_sentence(composed("other"), "'experiments/other/params.yaml'")
    Path("profiles/mine.yaml").unlink()
    one_sentence(composed("--check"), "'profiles/mine.yaml'", "no such profile")


@pytest.mark.parametrize(("name", "said"), [
    ("sedes", ("'profiles/sedes.yaml'", "no such profile", "did you mean 'seeds'")),
    ("profiles/seeds.yaml", ("'profiles/seeds.yaml' cannot be a name",)), ("../seeds", ("cannot be a name",)),
    ("a b", ("cannot be a name",)), ("", ("cannot be a name",)), ("parsers", ("give the profile another name",)),
    ("recipes", ("'profiles/recipes.yaml'", "device: is missing")),
])
def test_names_on_the_command_line(command, name, said):
    Path("profiles/parsers.yaml").write_text(HEAD)
    one_sentence(command(name), *said)


def test_a_profile_that_is_no_text_or_no_file(command):
    Path("profiles/mine.yaml").write_bytes(b"runs: {a: \xe9}\n")
    one_sentence(command("mine"), "'profiles/mine.yaml'", "is no UTF-8 text (byte 10)")
    Path("profiles/mine.yaml").write_bytes(b"runs: \x00\n")
    one_sentence(command("mine"), "'profiles/mine.yaml'", "YAML")
    Path("profiles/mine.yaml").unlink()
    Path("profiles/mine.yaml").mkdir()
    one_sentence(command("mine"), "'profiles/mine.yaml'", "cannot be read")


def test_a_circle_of_experiments(command):
    Path("profiles/a.yaml").write_text("include: [small]\non: [b]\n")
    Path("profiles/b.yaml").write_text("include: [small]\non: [a]\n")
    one_sentence(command("a"), "profiles/a.yaml", "a -> b -> a")


@pytest.mark.parametrize(("file", "content", "said"), [
    ("rows.csv", "paper,table\nsorn,1\n", "columns"), ("rows.csv", "", "columns"), ("rows.csv", b"\xff", "utf-8"),
    ("variants.yaml", "sorn: {like: sorn\n", "YAML"), ("variants.yaml", "[a]\n", "a list"),
    ("sweeps.yaml", "", "nothing"), ("sweeps.yaml", "a: {paper: sorn}\n", "a: "),
    ("variants.yaml", None, "is not there"), ("rows.csv", None, "No such file"),
])
def test_the_papers_lists(command, file, content, said):
    path = Path("profiles/tables") / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    one_sentence(command("paper", "--with", "market1501"), f"profiles/tables/{file}", said)


def test_check_takes_nothing_else(composed):
    for arguments in (["--check", "--force"], ["mine", "--check"], ["--check", "--with", "a"]):
        ended = composed(*arguments)
        assert ended.status == 2 and "--check takes nothing else" in ended.error
